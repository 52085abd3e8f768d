// What the server says of itself → the page. Every text is set as text, as labels and reasons are others' words.
import { budgetLine, frontier, latest, sparkline } from "./charts.js";
import { clock, count, decision, duration, known, ms, number, percent, why } from "./words.js";

export const $ = (id) => document.getElementById(id);

const COLOURS = 8;
const watts = [];

/** Sets a text only when it changed, so that screen readers do not hear it again. */
export function put(id, text) {
  const element = $(id);
  if (element.textContent !== text) element.textContent = text;
}

export function element(name, className = "", text = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

/** A mode's colour: by its place among the modes, so that it stays the same. */
export function palette(modes) {
  const places = new Map(modes.map((mode, at) => [mode.id, at % COLOURS]));
  return (id) => (places.has(id) ? places.get(id) : COLOURS - 1);
}

export function show(state, health) {
  const colour = palette(state.modes);
  const { recent, policy } = state;
  const newest = [...state.decisions].reverse();
  const active = state.modes.find((mode) => mode.id === state.active);
  const now = recent.modes[state.active];
  head(state);
  mode(state, newest, active, colour);
  budgetLine($("budget"), recent.latency_ms, policy.budget_ms);
  hits(recent, policy);
  power(health.meter, state.power);
  heat(state.device);
  queue(state, recent, health);
  table(state, colour);
  decisions(newest);
  frontier($("frontier"), state.modes, state.active, now ? now.latency_ms.p50 : null, policy.budget_ms, colour);
  latest($("latest"), recent.latest, policy.budget_ms, colour);
}

function head(state) {
  put("model", `${state.model} · ${count(state.modes.length, "mode", "modes")} · engine ${state.engine}`);
  put("bundle", `bundle ${state.bundle_sha256.slice(0, 12)}`);
  const simulated = state.engine === "sim";
  $("simulated").hidden = !simulated;
  put("simulated", simulated ? "Simulated engine: answers are made up" : "");
}

function mode(state, newest, active, colour) {
  put("mode", state.active || "–");
  $("mode-dot").className = `dot c${colour(state.active)}`;
  put("mode-facts", active ? `${percent(active.accuracy)} accurate, predicted ${ms(active.predicted_ms && active.predicted_ms.p50)} now` : "");
  const last = newest.find((one) => one.mode_id !== null);
  const refused = newest.length && newest[0].mode_id === null ? ` The last request was refused: ${why(newest[0].reason)}.` : "";
  put("why", last ? `${last.mode_id} answered last, because ${why(last.reason)}.${refused}` : refused.trim() || "No request has been answered yet.");
}

function hits(recent, policy) {
  const failed = Object.values(recent.failed).reduce((sum, one) => sum + one, 0);
  const more = failed ? `; ${failed} got no answer` : "";
  const within = `the last ${number(recent.window_s, 2)} s`;
  if (known(recent.hit_rate)) {
    put("hits", percent(recent.hit_rate));
    put("hits-more", `of ${count(recent.with_budget, "answer", "answers")} with a budget in ${within}${more}`);
  } else {
    put("hits", "–");
    const own = known(policy.budget_ms) ? "" : " The server itself sets none.";
    put("hits-more", `No answer had a budget in ${within}${more}.${own}`);
  }
}

function power(meter, budget) {
  const fresh = meter.status === "ok" && known(meter.watts);
  watts.push(fresh ? meter.watts : null);
  if (watts.length > 120) watts.shift();
  sparkline($("spark"), watts);
  const tile = $("watts").parentElement;
  tile.classList.toggle("old", !fresh);
  const source = `${meter.rail || meter.source}`;
  const say = meter.detail ? ` ${meter.detail}.` : "";
  if (fresh) {
    const simulated = meter.source === "sim";
    put("watts", `${number(meter.watts)} W`);
    put("watts-more", `${simulated ? "simulated" : source}, ${duration(meter.age_s)} old.${simulated ? "" : say}${plan(budget)}`);
  } else if (meter.status === "stale" && known(meter.watts)) {
    put("watts", `was ${number(meter.watts)} W`);
    put("watts-more", `stale: ${source}, ${duration(meter.age_s)} old.${say}${plan(budget)}`);
  } else {
    put("watts", "unknown");
    const none = meter.source === "none" ? " Choose a source with --meter." : "";
    put("watts-more", `${meter.status === "ok" ? "no reading" : meter.status}: ${source}.${say || none}${plan(budget)}`);
  }
}

function plan(budget) {
  if (!budget) return "";
  const spent = known(budget.spent_w) ? `, ${number(budget.spent_w)} W spent` : "";
  return ` Power budget ${number(budget.power_w)} W${spent} (${budget.verdict}).`;
}

function heat(device) {
  put("heat", known(device.temperature_c) ? `${device.temperature_c.toFixed(1)} °C` : "unknown");
  const parts = [];
  if (device.throttled === true) parts.push("Throttled: heat holds the clocks down.");
  if (device.throttled === false) parts.push("Not throttled.");
  if (device.throttled === null) parts.push("Whether it is throttled is not known.");
  if (known(device.seconds_to_limit)) parts.push(`At its limit in ${duration(device.seconds_to_limit)}.`);
  if (device.power_setting !== null) parts.push(`Power setting ${device.power_setting}.`);
  put("heat-more", parts.join(" "));
  $("heat").parentElement.classList.toggle("alarm", device.throttled === true);
}

function queue(state, recent, health) {
  put("queue", `${state.queue_depth} waiting`);
  const slow = state.slowdown;
  let pace = "As fast as profiled.";
  if (known(slow) && slow > 0 && Math.abs(slow - 1) >= 0.05) {
    pace = slow > 1 ? `${slow.toFixed(2)} times slower than profiled.` : `${(1 / slow).toFixed(2)} times faster than profiled.`;
  }
  const ready = health.draining ? " Draining." : health.ready ? "" : " Not ready.";
  put("queue-more", `${count(recent.answers, "answer", "answers")} in ${number(recent.window_s, 2)} s. ${pace}${ready}`);
}

function table(state, colour) {
  const rows = state.modes.map((mode) => {
    const row = element("tr", mode.id === state.active ? "now" : "");
    const seen = state.recent.modes[mode.id];
    const share = state.recent.answers && seen ? seen.answers / state.recent.answers : 0;
    const name = element("th");
    name.scope = "row";
    name.append(element("span", `dot c${colour(mode.id)}`), ` ${mode.id}`, element("span", "quiet", ` ${mode.precision}`));
    if (mode.id === state.active) name.append(element("span", "tag", "active"));
    row.append(
      name,
      cell("Accuracy", percent(mode.accuracy)),
      cell("Share, last minute (ever)", `${percent(share, 0)} (${percent(mode.active_share, 0)})`),
      cell("Predicted now, ms", predicted(mode, seen)),
      cell("Measured p50 / p95 / p99, ms", measured(seen)),
      cell("Energy profiled → measured, mJ", energy(mode, seen)),
      standing(mode),
    );
    return row;
  });
  $("modes").tBodies[0].replaceChildren(...rows);
  put("modes-more", `Predicted is what one image takes now, without waiting; measured is a whole request of the last minute, from its first byte to the head of its reply. Modes take ${number(state.memory_mb)} MB.`);
}

function cell(label, text) {
  const made = element("td", "", text);
  made.dataset.label = label;
  return made;
}

function predicted(mode) {
  if (!mode.predicted_ms) return "–";
  const [[, median], [name, bound]] = Object.entries(mode.predicted_ms);
  return `${number(median)} (${name} ${number(bound)})`;
}

function measured(seen) {
  return seen ? ["p50", "p95", "p99"].map((name) => number(seen.latency_ms[name])).join(" / ") : "–";
}

function energy(mode, seen) {
  const source = mode.energy_source === "sim" ? " sim" : "";
  const found = seen && known(seen.energy_mj) ? number(seen.energy_mj) : "–";
  return known(mode.energy_mj) || found !== "–" ? `${number(mode.energy_mj)} → ${found}${source}` : "–";
}

function standing(mode) {
  const out = mode.out_of_service;
  const made = cell("State", out ? `out: ${out}` : mode.resident ? "resident" : "not loaded");
  if (out) made.className = "out";
  return made;
}

function decisions(list) {
  const items = list.map((one) => {
    const [verdict, text] = decision(one);
    const item = element("li", verdict);
    const mark = { met: "✓", late: "!", refused: "×" }[verdict];
    const sign = element("span", "sign", mark);
    sign.setAttribute("aria-label", { met: "answered", late: "late", refused: "refused" }[verdict]);
    sign.setAttribute("role", "img");
    item.append(sign, element("time", "quiet", clock(one.time_s)), element("span", "", text));
    return item;
  });
  $("decisions").replaceChildren(...(items.length ? items : [element("li", "quiet", "None yet.")]));
}
