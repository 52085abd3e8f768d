// Asks the server how it is once a second while somebody looks, and hands what it says to the panels.
import { members, request, token } from "./api.js";
import { learn, start } from "./ask.js";
import { $, put, show } from "./panels.js";
import { problem } from "./words.js";

const PERIOD_MS = 1000;
let timer = 0;
let polling = false;
let lost = null;
let asked = null; // for which token /admin was tried

async function poll() {
  clearTimeout(timer);
  if (polling || document.hidden) return;
  polling = true;
  try {
    const replies = await Promise.all(["modes", "v2/health"].map((path) => request(path, { wait_ms: 5000 }))).catch(gone);
    if (replies) await look(replies);
  } finally {
    polling = false;
    if ($("login").hidden) timer = setTimeout(poll, PERIOD_MS);
  }
}

function gone() {
  lost = lost || new Date();
  say("bad", `Not reachable since ${lost.toLocaleTimeString()}`);
}

async function look(replies) {
  const [state, health] = await Promise.all(replies.map(members));
  const failed = replies.find((one) => !one.ok);
  if (failed && failed.status === 401) {
    put("login-error", token.get() ? "The server does not know this token." : $("login-error").textContent);
    token.drop();
    $("admin").hidden = true;
    say("warn", "A token is needed");
    if ($("login").hidden) {
      $("login").hidden = false;
      $("token").focus();
    }
    return;
  }
  if (!failed && !(state.modes && health.meter)) return gone(); // cut off within a reply
  lost = null;
  if (failed) {
    const [title, detail] = problem(failed.status, await (failed === replies[0] ? state : health));
    say("bad", title);
    notice(detail);
    return;
  }
  notice("");
  say(health.draining || !health.ready ? "warn" : "good", health.draining ? "Draining" : health.ready ? "Live" : "Not ready");
  learn(state.modes);
  show(state, health);
  if (token.get() && token.get() !== asked) {
    asked = token.get();
    $("admin").hidden = !(await request("admin/policy").catch(gone))?.ok;
  }
}

function say(kind, text) {
  $("state").className = `tag ${kind}`;
  put("state", text);
  document.body.classList.toggle("lost", kind === "bad");
}

function notice(text) {
  $("notice").hidden = !text;
  put("notice", text);
}

async function administer(path, question) {
  if (!confirm(question)) return;
  put("admin-said", "Asked …");
  try {
    const reply = await request(path, { method: "POST", wait_ms: 300000 });
    const [title, detail] = problem(reply.status, await members(reply));
    put("admin-said", reply.ok ? "Done." : `${title}: ${detail}`);
  } catch {
    put("admin-said", "The server cannot be reached.");
  }
  poll();
}

$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  token.set($("token").value.trim());
  $("token").value = "";
  $("login").hidden = true;
  poll();
});
$("drain").addEventListener("click", () => administer("admin/drain", "Drain this server? It finishes what it accepted, and then ends."));
$("rollback").addEventListener("click", () => administer("admin/rollback", "Serve the previous bundle again?"));
document.addEventListener("visibilitychange", poll);
start(poll);
poll();
