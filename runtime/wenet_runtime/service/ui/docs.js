// openapi.json → a list that can be read: every endpoint with its parameters, bodies, statuses and a command.

const $ = (id) => document.getElementById(id);
const VERBS = ["get", "post", "put", "delete", "patch"];

function element(name, text = "", className = "") {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  if (className) made.className = className;
  return made;
}

const origin = location.href.replace(/\/docs[^/]*$/, "");

function commands() {
  const image = "curl -sS -D - --data-binary @cat.jpg -H 'Content-Type: image/jpeg' \\\n  ";
  $("example-image").textContent = `${image}-H 'WeNet-Budget-Ms: 50' '${origin}/infer?top_k=5'`;
  $("example-floor").textContent = `${image}-H 'WeNet-Budget-Ms: 50' -H 'WeNet-Min-Accuracy: 0.68' -H 'WeNet-On-Miss: reject' '${origin}/infer'`;
  $("example-npy").textContent = `curl -sS --data-binary @x.npy -H 'Content-Type: application/x-npy' \\\n  -H 'Accept: application/x-npy' -o y.npy '${origin}/infer'`;
}

function command(path, verb, operation) {
  const words = ["curl -sS"];
  if (verb !== "get") words.push(`-X ${verb.toUpperCase()}`);
  if (path.startsWith("/admin")) words.push("-H 'Authorization: Bearer …'");
  if (path.endsWith("/infer")) {
    words.push("--data-binary @cat.jpg -H 'Content-Type: image/jpeg' -H 'WeNet-Budget-Ms: 50'");
  } else if (operation.requestBody) {
    words.push("-H 'Content-Type: application/json' -d '{…}'");
  }
  return `${words.join(" ")} '${origin}${path}'`;
}

function rows(caption, head, lines) {
  const table = element("table", "", "stack");
  const top = element("tr");
  for (const text of head) top.append(Object.assign(element("th", text), { scope: "col" }));
  const body = element("tbody");
  for (const [first, ...others] of lines) {
    const row = element("tr");
    row.append(Object.assign(element("th", first), { scope: "row" }));
    others.forEach((text, at) => {
      const cell = element("td", text);
      cell.dataset.label = head[at + 1];
      row.append(cell);
    });
    body.append(row);
  }
  const thead = element("thead");
  thead.append(top);
  table.append(thead, body);
  const folded = element("details");
  folded.append(element("summary", caption), table);
  return folded;
}

function endpoint(path, verb, operation) {
  const card = element("section", "", "card");
  const title = element("h2");
  title.append(element("span", verb.toUpperCase(), "verb"), element("code", path));
  card.append(title, element("p", operation.summary || ""));
  if (operation.description) card.append(element("p", operation.description, "quiet"));
  const given = operation.parameters || [];
  if (given.length) {
    const lines = given.map((one) => [one.name, `${one.in}${one.required ? ", required" : ""}`, one.description || kind(one.schema)]);
    card.append(rows(`Parameters: ${given.map((one) => one.name).join(", ")}`, ["Name", "Where", "Meaning"], lines));
  }
  const bodies = Object.keys((operation.requestBody && operation.requestBody.content) || {});
  if (bodies.length) card.append(element("p", `Body: ${bodies.join(", ")}`, "quiet"));
  const replies = Object.entries(operation.responses || {});
  card.append(rows(`Statuses: ${replies.map(([status]) => status).join(", ")}`, ["Status", "Meaning"], replies.map(([status, one]) => [status, one.description || ""])));
  const pre = element("pre");
  pre.append(element("code", command(path, verb, operation)));
  card.append(pre);
  return card;
}

function kind(schema = {}) {
  const range = schema.minimum !== undefined ? ` ${schema.minimum} to ${schema.maximum ?? "…"}` : "";
  return schema.enum ? schema.enum.join(", ") : `${schema.type || ""}${range}`;
}

async function start() {
  commands();
  const reply = await fetch("openapi.json").catch(() => null);
  if (!reply || !reply.ok) {
    $("said").textContent = "The server cannot be reached, or does not tell what it offers.";
    return;
  }
  const api = await reply.json();
  const cards = [];
  for (const [path, item] of Object.entries(api.paths)) {
    for (const verb of VERBS.filter((one) => item[one])) cards.push(endpoint(path, verb, item[verb]));
  }
  $("said").replaceWith(...cards);
}

start();
