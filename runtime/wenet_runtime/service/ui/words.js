// Numbers and codes as people read them. Nothing here touches the page.

export const known = (value) => typeof value === "number" && Number.isFinite(value);

/** Three significant digits, without an exponent; a dash for what is unknown, which is never 0. */
export function number(value, digits = 3) {
  if (!known(value)) return "–";
  if (Number.isInteger(value)) return String(value);
  const size = Math.floor(Math.log10(Math.abs(value)));
  return value.toFixed(Math.min(6, Math.max(0, digits - 1 - size)));
}

export const ms = (value) => (known(value) ? `${number(value)} ms` : "–");
export const percent = (share, digits = 1) => (known(share) ? `${(100 * share).toFixed(digits)} %` : "–");
const points = (share) => (known(share) ? `${number(100 * share)} points` : "an unknown number of points");
export const count = (value, one, many) => `${value} ${value === 1 ? one : many}`;
export const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString();

export function duration(seconds) {
  if (!known(seconds)) return "an unknown time";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 120) return `${number(seconds, 2)} s`;
  return `${Math.round(seconds / 60)} min`;
}

const CHOSEN = {
  fits: "it is the most accurate mode that fits",
  degraded: "nothing fitted, so the fastest allowed mode answered",
  pinned: "the request allowed this mode only",
  energy: "a better mode would have taken too much energy",
  thermal: "the device is throttled, so a tighter choice was made",
  "only-mode": "no other mode was allowed",
  cascade: "the cascade's rule decided whether a better mode was needed",
  guard: "the guard against escalations fell back to the static choice",
};

const REFUSED = {
  "deadline-infeasible": "no allowed mode would surely have finished in time",
  "budget-impossible": "no allowed mode meets what was asked, even on an idle device",
  "energy-unavailable": "no allowed mode's energy is known",
  "queue-full": "too many requests waited",
  "not-ready": "no allowed mode was resident",
  draining: "the server was shutting down",
  "deadline-exceeded": "its budget ended while it waited",
};

export const why = (reason) => CHOSEN[reason] || REFUSED[reason] || String(reason);

/** Why the better mode was not taken: [mode, code, what it needed, what there was]. */
export function passedOver(passed) {
  const [mode, code, needed, had] = passed;
  const texts = {
    "too-slow": `${mode} would have taken up to ${ms(needed)}, and ${ms(had)} were left`,
    "too-dear": `${mode} would have taken ${number(needed)} mJ, more than the ${number(had)} mJ allowed`,
    "over-power": `${mode} would have taken ${number(needed)} mJ above idle, and the power budget left ${number(had)}`,
    "no-room": `${mode} would have taken up to ${ms(needed)}, and those who wait left ${ms(had)}`,
    "not-worth": `${mode} is ${points(needed)} more accurate, and would have cost later requests ${points(had)}`,
    "not-resident": `${mode} was not loaded`,
  };
  return texts[code] || `${mode} was passed over (${code})`;
}

/** One decision as [verdict, sentence]; the verdict is one of "met", "late" and "refused". */
export function decision(one) {
  const asked = known(one.budget_ms) ? `within ${ms(one.budget_ms)}` : "without a budget";
  const rows = one.rows > 1 ? `${one.rows} rows ` : "";
  if (one.mode_id === null) {
    const fastest = one.passed_over;
    const room = fastest && fastest[1] === "no-room";
    const because = room ? "a request accepted before would have missed its deadline" : why(one.reason);
    const least = fastest && known(fastest[2]) ? `; ${fastest[0]} was predicted to take ${ms(fastest[2])}` : "";
    const how = one.outcome === "expired" ? "expired" : "refused";
    return ["refused", `${rows}${asked}: ${how}, because ${because}${least}.`];
  }
  const late = one.outcome === "late";
  let because = why(one.reason);
  if (one.first) because = one.first === one.mode_id ? "it was sure enough" : `${one.first} was tried first and was not sure enough`;
  const timed = known(one.measured_ms) ? ` in ${ms(one.measured_ms)} (predicted ${ms(one.median_ms)})` : "";
  const better = one.passed_over ? ` ${passedOver(one.passed_over)}.` : "";
  const energy = known(one.measured_mj) ? ` ${number(one.measured_mj)} mJ (${one.energy_source}).` : "";
  return [late ? "late" : "met", `${rows}${asked}: ${one.mode_id}${late ? ", late," : ""}${timed}, because ${because}.${better}${energy}`];
}

/** A problem reply in words: [headline, detail, what to do]. */
export function problem(status, body) {
  const slug = String(body.type || "").replace("urn:wenet:problem:", "");
  const todo = {
    "budget-impossible": "Give it more time, or lower the least accuracy.",
    "deadline-infeasible": "The device is busy: wait a moment, or give it more time.",
    "queue-full": "The device is busy: wait a moment.",
    "unsupported-media": "Choose a JPEG or a PNG.",
    "too-large": "Choose a smaller image.",
    "malformed-request": "Choose another image.",
    "invalid-tensor": "This bundle does not take images: send it tensors, as /docs shows.",
    unauthorized: "Give a token of this server.",
    "rate-limited": "Wait a moment.",
    "deadline-exceeded": "Give it more time.",
    draining: "Ask another server.",
  };
  return [`${body.title || "No answer"} (${status})`, String(body.detail || ""), todo[slug] || ""];
}
