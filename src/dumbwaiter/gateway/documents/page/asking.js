// Asking a model in the three ways: wait, come back later, stream. All calls go to this gateway alone.

const NO_CONNECTION = "no-connection";
const PASSING = [429, 502, 503, 504];
const LONGEST_PAUSE = 5000;

export class ProblemError extends Error {
  constructor(problem) {
    super(problem.detail);
    this.problem = problem;
  }
}

/** Whether the same question may fare better in a moment. */
function mayPass(error) {
  return error instanceof ProblemError && (error.problem.code === NO_CONNECTION || PASSING.includes(error.problem.status));
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
    const response = await reached(fetch(new URL(path, this.base), init));
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

  /**
   * What `ask()` gives, asked for again and again while the gateway is away: it is about what was accepted, which is
   * not lost. `onAway` hears whether it is away.
   */
  async insist(ask, { signal, onAway }) {
    for (let failures = 0; ; failures += 1) {
      try {
        const result = await ask();
        onAway(false);
        return result;
      } catch (error) {
        if (!mayPass(error)) throw error;
        onAway(true);
      }
      await pause(Math.min(300 * 2 ** failures, LONGEST_PAUSE), signal);
    }
  }

  cancel(id, { signal, onAway }) {
    return this.insist(() => this.fetch(this.prediction(id, "/cancel"), { method: "POST", signal }), { signal, onAway });
  }

  /** The kept prediction `id` as it is now. */
  look(id, { signal, onAway }) {
    return this.insist(async () => reached((await this.fetch(this.prediction(id), { signal })).json()), { signal, onAway });
  }

  /** The response that holds the output of `id` as it is, and its body. */
  output(id, { signal, onAway }) {
    const ask = async () => {
      const response = await this.fetch(this.prediction(id, "/output"), { signal });
      return { response, body: await reached(response.blob()) };
    };
    return this.insist(ask, { signal, onAway });
  }

  /** Ask again and again how `id` is; calls `onState(prediction)`, and returns the one that is final. */
  async poll(id, { signal, onState, onAway }) {
    for (let wait = 150; ; wait = Math.min(wait * 1.4, 1500)) {
      const prediction = await this.look(id, { signal, onAway });
      onState(prediction);
      if (isFinal(prediction)) return prediction;
      await pause(wait, signal);
    }
  }

  /** Follow the events of `id`; after a broken connection it goes on from the last one. Returns the prediction. */
  async follow(id, { signal, onEvent, onAway }) {
    let lastId = "";
    for (let failures = 0; ; failures += 1) {
      try {
        for await (const event of this.events(id, { lastId, signal, onAway })) {
          failures = 0;
          lastId = event.id || lastId;
          if (event.name === "completed") return event.data;
          onEvent(event);
        }
      } catch (error) {
        if (!mayPass(error)) throw error;
        onAway(true);
      }
      await pause(Math.min(300 * 2 ** failures, LONGEST_PAUSE), signal);
    }
  }

  async *events(id, { lastId, signal, onAway }) {
    const headers = { Accept: "text/event-stream", ...(lastId ? { "Last-Event-ID": lastId } : {}) };
    const response = await this.fetch(this.prediction(id, "/events"), { headers, signal });
    onAway(false);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { value, done } = await reached(reader.read());
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

/** What `work` gives, an exchange with the gateway; throws ProblemError where the connection fails. */
async function reached(work) {
  try {
    return await work;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ProblemError({ code: NO_CONNECTION, title: "No connection", detail: "the gateway cannot be reached" });
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
    const stop = () => {
      clearTimeout(timer);
      reject(new DOMException("stopped", "AbortError"));
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      resolve();
    }, ms);
    if (signal.aborted) stop();
    else signal.addEventListener("abort", stop, { once: true });
  });
}
