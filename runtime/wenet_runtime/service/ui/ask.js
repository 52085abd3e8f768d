// A person's own request: an image, a budget and a floor → POST /infer, and what came of it.
import { members, request } from "./api.js";
import { $, element, palette, put } from "./panels.js";
import { known, ms, number, percent, problem, why } from "./words.js";

let image = null;
let asking = false;
let askAgain = false;
let colour = () => 0;

export const learn = (modes) => {
  colour = palette(modes);
};

/** Wires the controls; `answered` is called after each reply. */
export function start(answered) {
  const soon = later(() => ask(answered), 150);
  $("file").addEventListener("change", () => $("file").files[0] && take($("file").files[0], soon));
  $("pattern").addEventListener("click", async () => take(await pattern(), soon));
  $("again").addEventListener("click", soon);
  for (const id of ["budget-ms", "floor", "on-miss"]) {
    $(id).addEventListener("input", () => {
      labels();
      soon();
    });
  }
  document.addEventListener("paste", (event) => {
    const [file] = event.clipboardData ? event.clipboardData.files : [];
    if (file) take(file, soon);
  });
  // Anywhere on the page: an image that misses the field must not replace the page.
  let inside = 0;
  const mark = (by) => $("drop").classList.toggle("over", (inside = Math.max(0, inside + by)) > 0);
  document.addEventListener("dragenter", () => mark(1));
  document.addEventListener("dragleave", () => mark(-1));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    mark(-inside);
    const [file] = event.dataTransfer.files;
    if (file) take(file, soon);
  });
  labels();
}

function later(action, wait_ms) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(action, wait_ms);
  };
}

const budget = () => Number((10 ** Number($("budget-ms").value)).toPrecision(3));
const floor = () => Number($("floor").value) / 100;

function labels() {
  put("budget-out", ms(budget()));
  $("budget-ms").setAttribute("aria-valuetext", `${number(budget())} milliseconds`);
  put("floor-out", floor() ? percent(floor()) : "any");
  $("floor").setAttribute("aria-valuetext", floor() ? percent(floor()) : "any");
}

async function take(file, soon) {
  image = file;
  $("again").disabled = false;
  put("drop-text", `${file.name || "Pasted image"}, ${Math.max(1, Math.round(file.size / 1024))} KB`);
  soon();
  const canvas = $("preview");
  try {
    // Drawn rather than linked: the page's policy allows no images from elsewhere, not even from memory.
    const bitmap = await createImageBitmap(file);
    const scale = Math.min(canvas.width / bitmap.width, canvas.height / bitmap.height);
    const [width, height] = [bitmap.width * scale, bitmap.height * scale];
    const brush = canvas.getContext("2d");
    brush.clearRect(0, 0, canvas.width, canvas.height);
    brush.drawImage(bitmap, (canvas.width - width) / 2, (canvas.height - height) / 2, width, height);
    canvas.hidden = false;
  } catch {
    canvas.hidden = true;
  }
}

/** An image for whoever has none at hand: circles on a slope, others each time. */
function pattern() {
  const canvas = Object.assign(document.createElement("canvas"), { width: 224, height: 224 });
  const brush = canvas.getContext("2d");
  const hue = Math.floor(Math.random() * 360);
  const slope = brush.createLinearGradient(0, 0, 224, 224);
  slope.addColorStop(0, `hsl(${hue} 60% 30%)`);
  slope.addColorStop(1, `hsl(${(hue + 60) % 360} 70% 70%)`);
  brush.fillStyle = slope;
  brush.fillRect(0, 0, 224, 224);
  for (let one = 0; one < 6; one++) {
    brush.fillStyle = `hsl(${(hue + 40 * one) % 360} 70% 55% / 0.7)`;
    brush.beginPath();
    brush.arc(Math.random() * 224, Math.random() * 224, 14 + Math.random() * 40, 0, 7);
    brush.fill();
  }
  return new Promise((done) => canvas.toBlob((blob) => done(new File([blob], "Test pattern", { type: "image/png" })), "image/png"));
}

/** One question at a time: while one is under way, only the newest of the others is kept. */
async function ask(answered) {
  if (!image) return;
  if (asking) {
    askAgain = true;
    return;
  }
  asking = true;
  $("answer").setAttribute("aria-busy", "true");
  const headers = { "Content-Type": image.type, "WeNet-Budget-Ms": String(budget()), "WeNet-On-Miss": $("on-miss").value };
  if (floor()) headers["WeNet-Min-Accuracy"] = String(Number(floor().toFixed(4)));
  try {
    const reply = await request("infer?top_k=5", { method: "POST", headers, body: image });
    const body = await members(reply);
    $("answer").replaceChildren(...(reply.ok ? good(reply.headers, body) : bad(reply.status, body)));
  } catch {
    $("answer").replaceChildren(element("p", "verdict no", "The server cannot be reached."));
  }
  $("answer").setAttribute("aria-busy", "false");
  asking = false;
  answered();
  if (askAgain) {
    askAgain = false;
    ask(answered);
  }
}

function good(headers, body) {
  const value = (name) => (headers.has(name) ? Number(headers.get(name)) : null);
  const mode = headers.get("wenet-mode");
  const met = headers.get("wenet-budget-met");
  const first = element("p", "mode");
  first.append(element("span", `dot c${colour(mode)}`), " ", element("strong", "", mode), ` answered, because ${why(headers.get("wenet-mode-reason"))}.`);
  const verdict = { true: ["verdict yes", "✓ Budget met"], false: ["verdict no", "× Budget missed"] }[met] || ["verdict", "No budget"];
  const energy = value("wenet-energy-mj");
  const facts = element("dl", "facts");
  const rows = [
    ["Predicted", ms(value("wenet-predicted-ms"))],
    ["Measured", ms(value("wenet-latency-ms"))],
    ["Energy", known(energy) ? `${number(energy)} mJ (${headers.get("wenet-energy-source")})` : "unknown"],
  ];
  for (const [name, text] of rows) facts.append(pair(name, text));
  const best = element("ol", "best");
  for (const one of (body.top_k && body.top_k[0]) || []) best.append(bar(one));
  return [first, element("p", ...verdict), facts, best];
}

function pair(name, text) {
  const made = element("div");
  made.append(element("dt", "quiet", name), element("dd", "", text));
  return made;
}

function bar(one) {
  const item = element("li");
  const track = element("span", "track");
  const fill = element("span", "fill");
  fill.style.width = `${known(one.score) ? 100 * one.score : 0}%`;
  track.append(fill);
  item.append(element("span", "label", one.label), element("span", "score", percent(one.score)), track);
  return item;
}

function bad(status, body) {
  const [head, detail, todo] = problem(status, body);
  const parts = [element("p", "verdict no", `× ${head}`)];
  if (detail) parts.push(element("p", "", `${detail}.`));
  if (todo) parts.push(element("p", "", todo));
  return parts;
}
