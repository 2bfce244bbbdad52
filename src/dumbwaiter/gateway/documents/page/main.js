// The page: which models there are, the one that is chosen, and asking it.

import { Gateway } from "./asking.js";
import { showProblem } from "./answer.js";
import { curlCommand } from "./curl.js";
import { copyButton, freshId, make } from "./elements.js";
import { inputForm } from "./form.js";
import { Run } from "./run.js";

const BASE = new URL(".", window.location.href);
const LOOK_EVERY = 5000;
const MODES = [
  ["wait", "Wait", "For the answer, on one connection."],
  ["later", "Later", "Hand it in, and look until the answer is there. It survives this page, whose address finds it again."],
  ["stream", "Stream", "See the output and the log while they come."],
];
const STATES = { ready: "ready", loading: "loading", failing: "cannot be loaded", draining: "stopping", none: "no worker" };
const KINDS = {
  image: "a picture",
  array: "an array",
  tensor: "a tensor",
  text: "text",
  bytes: "bytes",
  json: "JSON",
  arguments: "several values",
  any: "anything",
};

let key = "";
let openapi = null;
let chosen = "";
let listed = [];
let run = null;
let pasteTo = () => false;
let wantsKey = false;
const gateway = new Gateway(BASE, () => key);
const byId = (id) => document.getElementById(id);

function modelsOf(document_) {
  return Object.entries(document_.paths)
    .filter(([, path]) => path["x-dumbwaiter-model"])
    .map(([, path]) => modelOf(path));
}

function modelOf(path) {
  const { name, input = {}, output = {}, streaming = false, max_batch: maxBatch = 1 } = path["x-dumbwaiter-model"];
  const json = path.post.requestBody.content["application/json"];
  return {
    name,
    streaming,
    maxBatch,
    input: input.name,
    kind: input.kind ?? "any",
    outputKind: streaming ? "chunks" : (output.kind ?? "any"),
    chunkKind: output.kind ?? "any",
    contentTypes: input.content_types ?? [],
    schema: json.schema.properties.input,
    example: json.example?.input,
  };
}

/** `schema` with its reference followed, and of several kinds the one that is not null. */
function resolve(schema) {
  let one = schema ?? {};
  for (let depth = 0; depth < 20; depth += 1) {
    const kinds = (one.anyOf ?? []).filter((kind) => kind.type !== "null");
    if (one.$ref) one = openapi.components.schemas[one.$ref.split("/").at(-1)] ?? {};
    else if (one.anyOf && kinds.length === 1) one = { ...one, anyOf: undefined, ...kinds[0] };
    else break;
  }
  return one;
}

async function start() {
  byId("where").textContent = window.location.host;
  byId("key").addEventListener("submit", useKey);
  document.addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])][0];
    if (file && pasteTo(file)) event.preventDefault();
  });
  for (const link of document.querySelectorAll("[data-document]")) link.addEventListener("click", openDocument);
  window.addEventListener("hashchange", heedHash);
  window.addEventListener("resize", showWhetherMore);
  byId("models").addEventListener("scroll", showWhetherMore);
  await load();
  setInterval(() => document.hidden || wantsKey || (openapi === null ? load() : look()), LOOK_EVERY);
}

async function useKey(event) {
  event.preventDefault();
  key = byId("key-text").value.trim();
  await load();
}

/** Documents behind a key cannot be had by a plain link. */
async function openDocument(event) {
  if (!key) return;
  event.preventDefault();
  const response = await gateway.fetch(event.currentTarget.getAttribute("href"));
  window.open(URL.createObjectURL(await response.blob()), "_blank", "noopener");
}

async function load() {
  try {
    openapi = await gateway.json("openapi.json");
    wantsKey = false;
  } catch (error) {
    if (error.problem?.status === 401) return askForKey(error.problem);
    byId("model").replaceChildren(showProblem(error.problem ?? { detail: String(error) }));
    return;
  }
  byId("key").hidden = !openapi.components.securitySchemes;
  byId("key-note").textContent = key ? "This key is in use. It is gone when you close the page." : byId("key-note").textContent;
  await look();
}

function askForKey(problem) {
  wantsKey = true;
  chosen = "";
  // Who has not named a key yet has done nothing wrong.
  const quiet = make("p", { class: "quiet", text: "The models are shown to those who have a key." });
  byId("model").replaceChildren(key ? showProblem(problem) : quiet);
  byId("models").replaceChildren();
  showKeyForm(problem);
}

function showKeyForm(problem) {
  byId("key").hidden = false;
  if (key) byId("key-note").textContent = problem.detail;
  byId("key-text").focus();
}

/** Look who serves what; a model that came or went changes the list. */
async function look() {
  if (openapi === null) return;
  let overview;
  try {
    overview = (await gateway.json("v1/models")).models;
  } catch {
    return; // what was last seen stays, and asking will tell
  }
  const known = modelsOf(openapi).map((model) => model.name);
  const changed = overview.some((one) => !known.includes(one.name)) || known.length !== overview.length;
  if (changed || !describedAll(overview)) openapi = await gateway.json("openapi.json").catch(() => openapi);
  showList(modelsOf(openapi), overview);
}

function describedAll(overview) {
  const open = new Set(modelsOf(openapi).filter((model) => !model.contentTypes.length).map((model) => model.name));
  return overview.every((one) => !open.has(one.name) || stateOf(one) !== "ready");
}

function stateOf(overview) {
  const states = (overview?.workers ?? []).map((worker) => worker.state);
  return ["ready", "loading", "draining", "failing"].find((state) => states.includes(state)) ?? "none";
}

function showList(models, overview) {
  listed = models;
  const entries = models.map((model) => {
    const state = stateOf(overview.find((one) => one.name === model.name));
    const button = make(
      "button",
      { type: "button", "aria-current": model.name === chosen ? "true" : "false", onclick: () => visit(model) },
      make("span", { class: `dot ${state}`, "aria-hidden": "true" }),
      make("span", { class: "name", text: model.name }),
      make("span", { class: "state", text: STATES[state] }),
    );
    return make("li", {}, button);
  });
  const list = byId("models");
  const hadFocus = list.contains(document.activeElement) ? document.activeElement.querySelector(".name")?.textContent : null;
  list.replaceChildren(...entries);
  showWhetherMore();
  if (hadFocus) [...list.querySelectorAll("button")].find((one) => one.querySelector(".name").textContent === hadFocus)?.focus();
  const shown = byId("state");
  if (shown) shown.textContent = stateLine(overview.find((one) => one.name === chosen));
  if (!models.length) {
    const hint = "No model yet. Start one: dumbwaiter serve my_model.py:MyModel";
    byId("model").replaceChildren(make("p", { class: "quiet", text: hint }));
  } else if (!models.some((model) => model.name === chosen)) {
    const ready = models.find((model) => stateOf(overview.find((one) => one.name === model.name)) === "ready");
    const first = named(models) ?? ready ?? models[0];
    const wanted = chosen === "" ? wantedName() : "";
    if (wanted !== first.name) history.replaceState(null, "", hashOf(first));
    choose(first, overview);
    if (wanted && wanted !== first.name) tellMissing(wanted);
  }
}

/** Where the list is a strip that ends beyond the window, its end fades. */
function showWhetherMore() {
  const list = byId("models");
  list.classList.toggle("more", list.scrollWidth - list.clientWidth - list.scrollLeft > 4);
}

/** What the address says behind `#`: a model, and perhaps the `id` of what it was asked. */
function hashOf(model, id = "") {
  return `#${encodeURIComponent(model.name)}${id && `/${encodeURIComponent(id)}`}`;
}

/** The one of `models` that the address names, if any. */
function named(models) {
  return models.find((model) => model.name === wantedName());
}

/** Choose `model`, so that Back leads to the one before. */
function visit(model) {
  if (hashOf(model) !== window.location.hash) history.pushState(null, "", hashOf(model));
  choose(model);
}

/** The address was changed by hand, or by Back and Forward. */
function heedHash() {
  const model = named(listed);
  const shown = listed.find((one) => one.name === chosen);
  if (model && (model !== shown || (run?.id ?? "") !== wantedId())) choose(model);
  else if (!model && shown && wantedName()) {
    const wanted = wantedName();
    history.replaceState(null, "", hashOf(shown));
    tellMissing(wanted);
  }
}

/** The name in the address, of a model or not. */
function wantedName() {
  return decoded(window.location.hash.slice(1).split("/")[0]);
}

/** The id in the address, or "". */
function wantedId() {
  return decoded(window.location.hash.split("/").slice(1).join("/"));
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** There is no model of the name in the address; the one that is shown is another. */
function tellMissing(wanted) {
  byId("missing")?.remove();
  const text = `There is no model named “${wanted.slice(0, 100)}”. This is ${chosen}.`;
  byId("model").prepend(make("p", { class: "note", role: "alert", id: "missing", text }));
}

function stateLine(overview) {
  const state = stateOf(overview);
  const workers = overview?.workers ?? [];
  if (state === "none") return "No worker is running. Requests wait until one comes.";
  if (state === "failing") return `Its workers cannot load it: ${workers[0].reason}`;
  const ready = workers.filter((worker) => worker.state === "ready").length;
  return `${ready} of ${workers.length} worker${workers.length === 1 ? "" : "s"} ready.`;
}

function choose(model, overview) {
  chosen = model.name;
  for (const button of byId("models").querySelectorAll("button")) {
    const isChosen = button.querySelector(".name").textContent === chosen;
    button.setAttribute("aria-current", String(isChosen));
    if (isChosen) button.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
  showModel(model);
  if (overview) byId("state").textContent = stateLine(overview.find((one) => one.name === chosen));
  else look();
}

function showModel(model) {
  const answer = make("div", { class: "answer-body" }, make("p", { class: "quiet", text: "The answer comes here." }));
  const status = make("p", { class: "status", role: "status" });
  const curl = make("pre", { class: "code", tabindex: 0 });
  const form = inputForm(model, resolve, () => showCurl());
  const modes = modeChoice(() => showCurl());
  const ask = make("button", { type: "submit", class: "primary", text: "Ask" });
  const cancel = make("button", { type: "button", text: "Cancel", disabled: true });
  const complaint = make("p", { class: "note", role: "alert" });
  const id = make("p", { class: "id" });
  const onKept = (kept) => history.replaceState(null, "", hashOf(model, kept));
  run?.leave();
  run = new Run({ gateway, model, answer, status, ask, cancel, idLine: id, onKeyWanted: showKeyForm, onKept });
  const showCurl = async () => {
    const input = await form.read().catch(() => null);
    const url = new URL(`v1/models/${model.name}/predictions`, BASE).href;
    curl.textContent = curlCommand({ url, input, model, mode: modes.value(), auth: Boolean(openapi.components.securitySchemes) });
  };
  const submit = async (event) => {
    event.preventDefault();
    complaint.textContent = "";
    try {
      await run.start(await form.read(), modes.value());
    } catch (error) {
      complaint.textContent = error.message;
      error.control?.focus();
    }
  };
  pasteTo = (file) => form.paste?.(file) ?? false;
  const element = make("form", { class: "ask", onsubmit: submit }, form.element, modes.element);
  element.append(make("div", { class: "actions" }, ask, cancel), complaint);
  const more = make("details", { class: "curl", open: true }, make("summary", { text: "The same with curl" }));
  more.append(make("div", { class: "with-copy" }, curl, copyButton(() => curl.textContent)));
  byId("model").replaceChildren(
    heading(model),
    make(
      "div",
      { class: "columns" },
      make("section", { "aria-label": "Input" }, element),
      make("section", { "aria-label": "Answer", class: "answer" }, status, id, answer),
    ),
    more,
  );
  showCurl();
  if (wantedId()) run.resume(wantedId(), model.streaming ? "stream" : "later");
}

function heading(model) {
  const gives = model.streaming ? `${KINDS[model.chunkKind] ?? "anything"}, in chunks` : (KINDS[model.outputKind] ?? "anything");
  const facts = [`Takes ${KINDS[model.kind] ?? "anything"}`];
  if (gives !== KINDS.any) facts.push(`gives ${gives}`);
  if (model.maxBatch > 1) facts.push(`up to ${model.maxBatch} at once`);
  return make(
    "header",
    { class: "model" },
    make("h1", { text: model.name }),
    make("p", { class: "facts", text: `${facts.join(", ")}.` }),
    make("p", { class: "facts", id: "state" }),
  );
}

function modeChoice(changed) {
  const name = freshId("mode");
  const hint = make("p", { class: "hint" });
  const tell = () => {
    hint.textContent = MODES.find(([value]) => value === chosenMode())[2];
    changed();
  };
  const radios = MODES.map(([value], index) => make("input", { type: "radio", name, value, checked: index === 0, onchange: tell }));
  const labels = MODES.map(([, title], index) => make("label", {}, radios[index], make("span", { text: title })));
  const chosenMode = () => radios.find((radio) => radio.checked).value;
  hint.textContent = MODES[0][2];
  hint.id = freshId("hint");
  const legend = make("legend", { text: "How to ask" });
  return {
    element: make("fieldset", { class: "segments", "aria-describedby": hint.id }, legend, make("div", { class: "choices" }, ...labels), hint),
    value: chosenMode,
  };
}

start();
