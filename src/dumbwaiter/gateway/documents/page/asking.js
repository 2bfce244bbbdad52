// Asking a model in the three ways: wait, come back later, stream. All calls go to this gateway alone.

export class ProblemError extends Error {
  constructor(problem) {
    super(problem.detail);
    this.problem = problem;
  }
}

/** The gateway under `base` (a URL), asked with the key that `key()` gives, if any. */
export class Gateway {
  constructor(base, key) {
    this.base = base;
    this.key = key;
  }

  /** A response that is fine; throws ProblemError for one that is not. */
  async fetch(path, options = {}) {
    const headers = new Headers(options.headers);
    const key = this.key();
    if (key) headers.set("Authorization", `Bearer ${key}`);
    const init = { ...options, headers, credentials: "omit", referrerPolicy: "no-referrer" };
    let response;
    try {
      response = await fetch(new URL(path, this.base), init);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ProblemError({ code: "no-connection", title: "No connection", detail: "the gateway cannot be reached" });
    }
    if (!response.ok) throw new ProblemError(await problemOf(response));
    return response;
  }

  async json(path) {
    return (await this.fetch(path)).json();
  }

  /** The response of a prediction by `model`, for an `input` of form.js. */
  ask(model, input, { later, signal }) {
    const raw = input.body !== undefined && input.files === undefined;
    const headers = { "Content-Type": raw ? input.type : "application/json" };
    if (later) headers.Prefer = "respond-async";
    const body = raw ? input.body : JSON.stringify({ input: input.value });
    return this.fetch(`v1/models/${encodeURIComponent(model)}/predictions`, { method: "POST", headers, body, signal });
  }

  prediction(id, tail = "") {
    return `v1/predictions/${encodeURIComponent(id)}${tail}`;
  }

  cancel(id) {
    return this.fetch(this.prediction(id, "/cancel"), { method: "POST" });
  }

  /** Ask again and again how `id` is; calls `onState(prediction)`, and returns the one that is final. */
  async poll(id, { signal, onState }) {
    for (let wait = 150; ; wait = Math.min(wait * 1.4, 1500)) {
      const response = await this.fetch(this.prediction(id), { signal });
      const prediction = await response.json();
      onState(prediction);
      if (isFinal(prediction)) return prediction;
      await pause(wait, signal);
    }
  }

  /** Follow the events of `id`; after a broken connection it goes on from the last one. Returns the prediction. */
  async follow(id, { signal, onEvent }) {
    let lastId = "";
    for (let failures = 0; failures < 5; failures += 1) {
      try {
        for await (const event of this.events(id, lastId, signal)) {
          failures = 0;
          lastId = event.id || lastId;
          if (event.name === "completed") return event.data;
          onEvent(event);
        }
      } catch (error) {
        if (error.name === "AbortError" || error instanceof ProblemError) throw error;
      }
      await pause(300 * (failures + 1), signal);
    }
    throw new ProblemError({ code: "no-connection", title: "No connection", detail: "the stream of events breaks off" });
  }

  async *events(id, lastId, signal) {
    const headers = { Accept: "text/event-stream", ...(lastId ? { "Last-Event-ID": lastId } : {}) };
    const response = await this.fetch(this.prediction(id, "/events"), { headers, signal });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (text + value).split(/\r?\n\r?\n/);
      text = blocks.pop();
      for (const block of blocks) {
        const event = readEvent(block);
        if (event) yield event;
      }
    }
  }
}

export function isFinal(prediction) {
  return ["succeeded", "failed", "canceled"].includes(prediction.status);
}

/** One block of a stream of server-sent events, or null for a comment. */
function readEvent(block) {
  const event = { id: "", name: "message" };
  const data = [];
  for (const line of block.split(/\r?\n/)) {
    const [, field, value] = /^([^:]*):? ?(.*)$/.exec(line);
    if (field === "id") event.id = value;
    else if (field === "event") event.name = value;
    else if (field === "data") data.push(value);
  }
  if (!data.length) return null;
  try {
    event.data = JSON.parse(data.join("\n"));
  } catch {
    event.data = data.join("\n");
  }
  return event;
}

async function problemOf(response) {
  const retryAfter = response.headers.get("Retry-After");
  const id = response.headers.get("X-Prediction-Id");
  try {
    const problem = await response.json();
    return { ...problem, id, status: response.status, retryAfter };
  } catch {
    const detail = `the gateway answered with ${response.status}`;
    return { status: response.status, code: "unknown", title: response.statusText, detail, retryAfter };
  }
}

function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("stopped", "AbortError"));
    });
  });
}
