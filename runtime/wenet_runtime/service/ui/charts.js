// Small charts as SVG. Texts are set as text, sizes as attributes: the page's policy allows no inline style.
import { known, number, percent } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";

export function svg(name, attributes = {}, text = null) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== null) made.textContent = text;
  return made;
}

function chart(holder, width, height, label) {
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  holder.replaceChildren(root);
  return root;
}

/** As wide as its place, so that texts keep their size on a phone. */
const widthOf = (holder) => Math.max(260, Math.min(560, holder.clientWidth || 560));

const log = (low, high, from, to) => (value) =>
  from + ((to - from) * Math.log(Math.max(value, low) / low)) / Math.log(high / low);
const linear = (low, high, from, to) => (value) => from + ((to - from) * (value - low)) / (high - low || 1);

/** 1, 2 and 5 of each decade; of a wide range only the decades. */
function ticks(low, high) {
  const found = [];
  const steps = high / low > 200 ? [1] : [1, 2, 5];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
    for (const step of steps) {
      const value = step * 10 ** power;
      if (value >= low * 0.999 && value <= high * 1.001) found.push(value);
    }
  }
  return found;
}

/** A range of a logarithmic axis with some room on both sides. */
function span(values) {
  const good = values.filter((one) => known(one) && one > 0);
  if (!good.length) return [1, 100];
  return [Math.min(...good) / 1.5, Math.max(...good) * 1.5];
}

/** Budget against percentiles: one line with marks. */
export function budgetLine(holder, latency, budget) {
  const [width, height, left, right, y] = [widthOf(holder), 78, 14, 14, 42];
  const named = ["p50", "p95", "p99"].filter((name) => known(latency[name]));
  if (!named.length && !known(budget)) return holder.replaceChildren();
  const [low, high] = span([...named.map((name) => latency[name]), budget]);
  const x = log(low, high, left, width - right);
  const texts = [...named.map((name) => `${name} ${number(latency[name])} ms`), known(budget) ? `budget ${number(budget)} ms` : "no budget"];
  const root = chart(holder, width, height, `Last minute: ${texts.join(", ")}`);
  root.append(svg("line", { x1: left, x2: width - right, y1: y, y2: y, class: "axis" }));
  if (known(budget)) {
    const at = x(budget);
    root.append(
      svg("rect", { x: left, y: y - 7, width: Math.max(0, at - left), height: 14, rx: 3, class: "within" }),
      svg("line", { x1: at, x2: at, y1: 20, y2: y + 12, class: "limit" }),
      svg("text", { x: at, y: 14, class: "limit-text", "text-anchor": anchor(at, width, 100) }, `the server's budget ${number(budget)} ms`),
    );
  }
  if (known(latency.p50) && known(latency.p99)) {
    root.append(svg("rect", { x: x(latency.p50), y: y - 3, width: Math.max(1, x(latency.p99) - x(latency.p50)), height: 6, class: "spread" }));
  }
  // Percentiles that lie close together share a label, so that it can be read.
  let last = null;
  for (const name of named) {
    const at = x(latency[name]);
    root.append(svg("circle", { cx: at, cy: y, r: 5, class: known(budget) && latency[name] > budget ? "mark over" : "mark" }));
    if (last && at - last.at < 92) {
      last.text.textContent += ` · ${name} ${number(latency[name])}`;
      last.text.setAttribute("x", (last.at = (last.at + at) / 2));
      last.text.setAttribute("text-anchor", anchor(last.at, width, 120));
      if (anchor(last.at, width, 120) !== "middle") last.text.setAttribute("x", anchor(last.at, width, 120) === "start" ? left : width - right);
    } else {
      const text = svg("text", { x: at, y: 68, "text-anchor": anchor(at, width) }, `${name} ${number(latency[name])}`);
      root.append(text);
      last = { at, text };
    }
  }
}

const anchor = (at, width, room = 60) => (at < room ? "start" : at > width - room ? "end" : "middle");

/** Modes by accuracy over profiled latency; the active one's disc stands where it is measured now. */
export function frontier(holder, modes, active, measured, budget, colour) {
  const [width, height, left, right, top, bottom] = [widthOf(holder), 300, 52, 20, 18, 40];
  const shown = modes.filter((mode) => known(mode.latency_ms.p50));
  if (!shown.length) return holder.replaceChildren();
  const [low, high] = span([...shown.map((mode) => mode.latency_ms.p50), measured, budget]);
  const accuracies = shown.map((mode) => mode.accuracy);
  const room = (Math.max(...accuracies) - Math.min(...accuracies)) * 0.15 || 0.02;
  const x = log(low, high, left, width - right);
  const y = linear(Math.min(...accuracies) - room, Math.max(...accuracies) + room, height - bottom, top);
  const words = shown.map((mode) => `${mode.id}: ${percent(mode.accuracy)} at ${number(mode.latency_ms.p50)} ms`).join("; ");
  const old = holder.querySelector(".active");
  const root = chart(holder, width, height, `Accuracy over latency. ${words}. Active: ${active || "none"}.`);
  for (const value of ticks(low, high)) {
    root.append(
      svg("line", { x1: x(value), x2: x(value), y1: top, y2: height - bottom, class: "grid" }),
      svg("text", { x: x(value), y: height - bottom + 16, "text-anchor": "middle" }, number(value, 1)),
    );
  }
  const [least, most] = [Math.min(...accuracies), Math.max(...accuracies)];
  for (const value of least === most ? [least] : [least, (least + most) / 2, most]) {
    root.append(
      svg("line", { x1: left, x2: width - right, y1: y(value), y2: y(value), class: "grid" }),
      svg("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, percent(value)),
    );
  }
  root.append(svg("text", { x: (left + width) / 2, y: height - 6, "text-anchor": "middle" }, "latency in ms, logarithmic"));
  if (known(budget)) {
    const at = x(budget);
    root.append(
      svg("line", { x1: at, x2: at, y1: top, y2: height - bottom, class: "limit" }),
      svg("text", { x: at + (at > width / 2 ? -5 : 5), y: top + 8, class: "limit-text", "text-anchor": at > width / 2 ? "end" : "start" }, "the server's budget"),
    );
  }
  const path = best(shown).map((mode) => `${x(mode.latency_ms.p50)},${y(mode.accuracy)}`).join(" ");
  root.append(svg("polyline", { points: path, class: "frontier" }));
  const placed = [];
  for (const mode of shown) {
    const [cx, cy] = [x(mode.latency_ms.p50), y(mode.accuracy)];
    root.append(svg("circle", { cx, cy, r: 5, class: `ring c${colour(mode.id)}` }));
    if (!placed.some(([px, py]) => Math.abs(px - cx) < 30 && Math.abs(py - cy) < 12)) {
      root.append(svg("text", { x: cx + (cx > width - 60 ? -9 : 9), y: cy + 15, class: "name", "text-anchor": cx > width - 60 ? "end" : "start" }, mode.id));
      placed.push([cx, cy]);
    }
  }
  const now = shown.find((mode) => mode.id === active);
  if (!now) return;
  const spot = svg("circle", { r: 7, class: `active c${colour(now.id)}` });
  const place = () => {
    spot.setAttribute("transform", `translate(${x(known(measured) ? measured : now.latency_ms.p50)} ${y(now.accuracy)})`);
  };
  // Begins where it stood, so that the eye can follow it; without motion where that is not wanted.
  if (old) {
    spot.setAttribute("transform", old.getAttribute("transform"));
    root.append(spot);
    spot.getBoundingClientRect();
    place();
  } else {
    place();
    root.append(spot);
  }
}

/** Those that no other beats in both, fastest first. */
function best(modes) {
  const found = [];
  for (const mode of [...modes].sort((a, b) => a.latency_ms.p50 - b.latency_ms.p50 || b.accuracy - a.accuracy)) {
    if (!found.length || mode.accuracy > found[found.length - 1].accuracy) found.push(mode);
  }
  return found;
}

/** The latest answers, one after the other, newest on the right. */
export function latest(holder, answers, budget, colour) {
  const [width, height, left, right, top, bottom] = [widthOf(holder), 300, 52, 20, 18, 40];
  if (!answers.length) {
    holder.replaceChildren(Object.assign(document.createElement("p"), { className: "quiet", textContent: "No answer in the last minute." }));
    return;
  }
  const [low, high] = span([...answers.map((one) => one.latency_ms), budget]);
  const oldest = Math.max(...answers.map((one) => one.age_s));
  const reach = [5, 10, 20, 30, 60].find((one) => one >= oldest) || 60;
  const x = linear(reach, 0, left + 6, width - right - 6);
  const y = log(low, high, height - bottom, top);
  const missed = answers.filter((one) => one.met === false).length;
  const root = chart(holder, width, height, `${answers.length} latest answers of the last minute, ${missed} beyond their budget`);
  for (const value of ticks(low, high)) {
    root.append(
      svg("line", { x1: left, x2: width - right, y1: y(value), y2: y(value), class: "grid" }),
      svg("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, number(value, 1)),
    );
  }
  for (const age of [reach, reach / 2, 0]) {
    root.append(svg("text", { x: x(age), y: height - bottom + 16, "text-anchor": "middle" }, age ? `−${age} s` : "now"));
  }
  root.append(svg("text", { x: left - 40, y: 10, class: "name" }, "ms"));
  if (known(budget)) {
    root.append(
      svg("line", { x1: left, x2: width - right, y1: y(budget), y2: y(budget), class: "limit" }),
      svg("text", { x: left + 4, y: y(budget) - 4, class: "limit-text" }, "the server's budget"),
    );
  }
  for (const one of answers) {
    const [cx, cy] = [x(Math.min(reach, one.age_s)), y(one.latency_ms)];
    if (one.met === false) {
      root.append(svg("path", { d: `M${cx - 4} ${cy - 4}l8 8m0 -8l-8 8`, class: `cross c${colour(one.mode)}` }));
    } else {
      root.append(svg("circle", { cx, cy, r: 3.5, class: `disc c${colour(one.mode)}` }));
    }
  }
}

/** Watts since the page was opened; a gap where nothing was known. */
export function sparkline(holder, samples) {
  const [width, height] = [220, 40];
  const good = samples.filter(known);
  if (good.length < 2) return holder.replaceChildren();
  const [low, high] = [Math.min(...good), Math.max(...good)];
  const flat = high - low < 1e-9;
  const x = linear(0, samples.length - 1, 2, width - 2);
  const y = flat ? () => height / 2 : linear(low, high, height - 4, 4);
  const root = chart(holder, width, height, `Power over the last ${samples.length} seconds, ${number(low)} to ${number(high)} W`);
  let path = "";
  samples.forEach((value, at) => {
    if (known(value)) path += `${at && known(samples[at - 1]) ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
  });
  root.append(svg("path", { d: path, class: "spark" }));
}
