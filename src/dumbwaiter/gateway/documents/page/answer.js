// Showing what came back: pictures, text, scores, JSON, the time it took, and problems.

import { copyButton, duration, make, size } from "./elements.js";

const MOST_BARS = 20;

/** The output in a prediction object, or a raw response with its content type, as an element. */
export async function showResponse(response) {
  const type = (response.headers.get("Content-Type") ?? "").toLowerCase();
  if (type.startsWith("application/json")) {
    const document = await response.json();
    return { prediction: document, element: showValue(document.output) };
  }
  return { prediction: null, element: await showBody(response, await response.blob()) };
}

/** The whole body of `response` as an element. */
export async function showBody(response, body) {
  const type = (response.headers.get("Content-Type") ?? "").toLowerCase();
  return type.startsWith("text/") ? showText(await body.text()) : showBlob(body, type);
}

/** A JSON value as an element: a picture where it is one, bars where it is labels with scores. */
export function showValue(value) {
  if (typeof value === "string") {
    const blob = blobOf(value);
    return blob ? showBlob(blob, blob.type) : showText(value);
  }
  const scores = scoresOf(value);
  if (scores) return make("div", {}, showScores(scores), showSource(value, "The same as JSON"));
  if (Array.isArray(value) && value.length && value.every((one) => typeof one === "string")) {
    const blobs = value.map(blobOf);
    if (blobs.every(Boolean)) return make("div", {}, ...blobs.map((blob) => showBlob(blob, blob.type)));
  }
  return showJson(value);
}

export function showText(text) {
  return make("div", { class: "with-copy" }, make("pre", { class: "text", text }), copyButton(() => text));
}

function showJson(value) {
  const text = JSON.stringify(value, null, 2) ?? "nothing";
  return make("div", { class: "with-copy" }, make("pre", { class: "code", text, tabindex: 0 }), copyButton(() => text));
}

function showSource(value, title) {
  return make("details", {}, make("summary", { text: title }), showJson(value));
}

function showBlob(blob, type) {
  const url = URL.createObjectURL(blob);
  const name = `answer.${extensionOf(type)}`;
  const link = make("a", { href: url, download: name, text: `Save ${name} (${size(blob.size)})` });
  if (!type.startsWith("image/")) return make("p", {}, link);
  return make("figure", {}, make("img", { src: url, alt: "The model's answer" }), make("figcaption", {}, link));
}

function extensionOf(type) {
  const known = { "image/png": "png", "image/jpeg": "jpg", "image/webp": "webp", "application/x-npy": "npy" };
  return known[type.split(";")[0].trim()] ?? "bin";
}

function blobOf(text) {
  const match = /^data:([^,;]*)((?:;[^,;]*)*?)(;base64)?,/.exec(text.slice(0, 300));
  if (!match || !match[3]) return null;
  try {
    const binary = atob(text.slice(match[0].length));
    const bytes = Uint8Array.from(binary, (character) => character.charCodeAt(0));
    return new Blob([bytes], { type: match[1].toLowerCase() });
  } catch {
    return null;
  }
}

/** [label, score] pairs when `value` is labels with scores in one of the usual shapes, else null. */
function scoresOf(value) {
  if (value === null || typeof value !== "object") return null;
  const pairs = Array.isArray(value) ? value.map(pairOf) : Object.entries(value);
  const fine = pairs.length > 0 && pairs.every((pair) => pair && isScore(pair[1]));
  return fine ? pairs : null;
}

function pairOf(one) {
  if (Array.isArray(one)) return one.length === 2 && typeof one[0] === "string" ? one : null;
  if (one === null || typeof one !== "object") return null;
  const label = one.label ?? one.name ?? one.class ?? one.class_name;
  const score = one.score ?? one.probability ?? one.confidence ?? one.prob;
  return typeof label === "string" && Object.keys(one).length <= 3 ? [label, score] : null;
}

function isScore(score) {
  return typeof score === "number" && score >= 0 && score <= 1;
}

function showScores(pairs) {
  const shown = [...pairs].sort((one, other) => other[1] - one[1]).slice(0, MOST_BARS);
  const rows = shown.map(([label, score]) => {
    const bar = make("span", { class: "bar", "aria-hidden": "true" });
    bar.style.setProperty("--share", score);
    const percent = `${(score * 100).toFixed(1)} %`;
    return make("tr", {}, make("th", { scope: "row", text: label }), make("td", {}, bar), make("td", { class: "number", text: percent }));
  });
  const more = pairs.length - shown.length;
  return make(
    "table",
    { class: "scores" },
    make("caption", { class: "for-readers", text: "Labels and scores" }),
    make("tbody", {}, ...rows),
    more > 0 ? make("tfoot", {}, make("tr", {}, make("td", { colspan: 3, text: `and ${more} more` }))) : null,
  );
}

/** Seconds by stage, from a prediction's metrics or a Server-Timing header; null when neither says. */
export function timingsOf(prediction, response) {
  if (prediction?.metrics) {
    const { queued_time: queued, batched_time: batched, predict_time: device, batch_size: batch } = prediction.metrics;
    return { queued, batched, device, batch };
  }
  const header = response?.headers.get("Server-Timing");
  if (!header) return null;
  const said = Object.fromEntries([...header.matchAll(/(\w+);(?:dur|desc)="?([\d.]+)"?/g)].map((one) => [one[1], Number(one[2])]));
  const { queued = 0, batched = 0, predict = 0, batch = 1 } = said;
  return { queued: queued / 1e3, batched: batched / 1e3, device: predict / 1e3, batch };
}

/** Where the time went, as one bar with its legend. */
export function showTimings(timings, total) {
  const stages = ["queued", "batched", "device"];
  const sum = stages.reduce((so_far, stage) => so_far + timings[stage], 0) || 1;
  const parts = stages.map((stage) => {
    const part = make("span", { class: `part ${stage}` });
    part.style.flexGrow = timings[stage] / sum;
    return part;
  });
  const legend = stages.map((stage) =>
    make("li", {}, make("span", { class: `swatch ${stage}`, "aria-hidden": "true" }), `${stage} ${duration(timings[stage])}`),
  );
  if (timings.batch > 1) legend.push(make("li", { text: `in a batch of ${timings.batch}` }));
  if (total) legend.push(make("li", { class: "total", text: `${duration(total)} in all, as seen from here` }));
  return make(
    "div",
    { class: "timings" },
    make("div", { class: "time-bar", "aria-hidden": "true" }, ...parts),
    make("ul", { "aria-label": "Where the time went" }, ...legend),
  );
}

const NEXT = {
  "bad-input": "Change the input and ask again.",
  "forbidden-url": "Send the data itself instead of this address.",
  "unknown-prediction": "Check the id in this page's address, and the API key: each sees its own tenant's alone.",
  "unknown-model": "Choose another model, or start a worker for this one.",
  "model-failing": "Look at the worker's log, and start it again.",
  "no-answer-in-time": "Ask with “Later”, which waits as long as it takes, or start a worker.",
  "deadline-exceeded": "Ask again with a later deadline.",
  "body-too-large": "Send something smaller.",
  "prediction-expired": "Ask the model anew.",
  "input-unreachable": "Send the data itself instead of its address.",
  overloaded: "Ask again later, or with “Later”, which does not hurry.",
  "no-connection": "See whether the gateway still runs, and ask again.",
  "broker-unavailable": "Ask again in a moment.",
};
const CHANGE = "Change the request and ask again.";
const NEXT_BY_STATUS = {
  400: CHANGE,
  404: CHANGE,
  409: CHANGE,
  413: CHANGE,
  415: CHANGE,
  422: CHANGE,
  401: "Enter a key that this gateway knows, at the top of the page.",
  403: "Use a key that may do this.",
  429: "Wait a little before you ask again.",
  503: "Ask again in a moment.",
};

/** Where the author of `model` finds the traceback of the prediction `id`, if that is known. */
function whereItFailed(model, id) {
  const show = make("code", { text: `dumbwaiter dead-letters show ${model} ${id ?? "ID"}` });
  const where = id ? "" : ` (IDs: dumbwaiter dead-letters list ${model})`;
  return make("span", {}, "Change the input, or see the model's traceback: ", show, where);
}

/** A problem+json document, or the error of a prediction, as what, why and what next; `of` names model and id. */
export function showProblem(problem, of = {}) {
  const why = problem.detail ?? problem.message ?? "no reason was given";
  const retry = problem.retryAfter ? `Ask again in ${problem.retryAfter} s.` : null;
  const next = NEXT[problem.code] ?? retry ?? NEXT_BY_STATUS[problem.status] ?? "The gateway's log may say more.";
  const what = [problem.status, problem.title ?? "No output"].filter(Boolean).join(" ");
  const rows = [
    ["What", make("span", {}, `${what} `, make("code", { text: problem.code ?? "unknown" }))],
    ["Why", make("span", { text: why })],
    ["Next", problem.code === "model-error" && of.model ? whereItFailed(of.model, of.id) : make("span", { text: next })],
  ];
  return make(
    "div",
    { class: "problem", role: "alert" },
    make("dl", {}, ...rows.flatMap(([term, said]) => [make("dt", { text: term }), make("dd", {}, said)])),
  );
}
