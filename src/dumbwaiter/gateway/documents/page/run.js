// Asking one model, and showing how it goes.

import { showBody, showProblem, showResponse, showTimings, showValue, timingsOf } from "./answer.js";
import { ProblemError, isFinal } from "./asking.js";
import { duration, make } from "./elements.js";

/** One model's panel while it is asked: at most one request at a time. */
export class Run {
  /** `onKeyWanted(problem)` hears of a key that the gateway does not take, `onKept(id)` what is kept, "" for nothing. */
  constructor({ gateway, model, answer, status, ask, cancel, idLine, onKeyWanted, onKept }) {
    Object.assign(this, { gateway, model, answer, status, ask, cancel, idLine, onKeyWanted, onKept });
    this.id = null;
    this.isLeft = false;
    cancel.addEventListener("click", () => this.stop());
  }

  start(input, mode) {
    this.onKept("");
    const word = mode === "wait" ? "Waiting for the answer" : "Handing it in";
    return this.during(word, () => (mode === "wait" ? this.waitFor(input) : this.keepAndLook(input, mode)));
  }

  /** Go on with what was accepted before, perhaps by another page. */
  resume(id, mode) {
    return this.during("Looking for it", async () => {
      this.wasResumed = true;
      this.keep(id);
      await this.watch(await this.gateway.look(id, this.patience()), mode);
    });
  }

  /** Look no more: this panel is not shown any longer. What was accepted goes on. */
  leave() {
    this.isLeft = true;
    this.control?.abort();
  }

  async during(word, work) {
    this.control = new AbortController();
    this.id = null;
    this.isAway = false;
    this.wasStopped = false;
    this.wasResumed = false;
    this.began = performance.now();
    this.word = word;
    this.ask.disabled = true;
    this.cancel.disabled = false;
    this.answer.replaceChildren();
    this.idLine.textContent = "";
    const clock = setInterval(() => this.tick(), 100);
    try {
      await work();
    } catch (error) {
      this.fail(error);
    } finally {
      clearInterval(clock);
      this.ask.disabled = false;
      this.cancel.disabled = true;
    }
  }

  seconds() {
    return (performance.now() - this.began) / 1000;
  }

  tick() {
    const word = this.isAway ? "No answer from the gateway; asking again" : this.word;
    if (!this.control.signal.aborted) this.status.textContent = `${word}, ${this.seconds().toFixed(1)} s`;
  }

  /** For questions about what was accepted. */
  patience() {
    return { signal: this.control.signal, onAway: (isAway) => Object.assign(this, { isAway }) };
  }

  async waitFor(input) {
    const response = await this.gateway.ask(this.model.name, input, { signal: this.control.signal });
    const total = this.seconds();
    const { prediction, element } = await showResponse(response);
    this.finish(element, timingsOf(prediction, response), total);
  }

  async keepAndLook(input, mode) {
    const response = await this.gateway.ask(this.model.name, input, { later: true, signal: this.control.signal });
    const id = response.headers.get("X-Prediction-Id");
    this.keep(id);
    await this.watch(await response.json().catch(() => this.gateway.look(id, this.patience())), mode);
  }

  /** From now on it is known by its `id`, here and in the page's address. */
  keep(id) {
    this.id = id;
    this.idLine.textContent = id;
    this.onKept(id);
  }

  async watch(prediction, mode) {
    this.tell(prediction);
    let last = prediction;
    if (mode === "stream") {
      last = await this.gateway.follow(this.id, { ...this.patience(), onEvent: (event) => this.take(event) });
    } else if (!isFinal(prediction)) {
      last = await this.gateway.poll(this.id, { ...this.patience(), onState: (state) => this.tell(state) });
    }
    await this.end(last, mode);
  }

  tell(prediction) {
    const position = prediction.queue_position;
    if (prediction.status === "processing") this.word = "Running";
    else if (position === undefined) this.word = "Waiting in the queue";
    else if (position === 0) this.word = "Next in the queue";
    else this.word = `${position} before yours in the queue`;
  }

  take(event) {
    if (event.name === "start") this.word = "Running";
    if (event.name === "output") this.append("output", event.data);
    if (event.name === "log" || event.name === "logs") this.append("log", event.data);
  }

  append(kind, data) {
    this.word = kind === "output" ? "Streaming" : this.word;
    const text = typeof data === "string" ? data : JSON.stringify(data);
    if (typeof data === "string" && data.startsWith("data:image/")) return this.answer.append(showValue(data));
    let place = this.answer.querySelector(`pre.${kind}`);
    if (!place) {
      place = make("pre", { class: `text ${kind}`, "aria-live": kind === "output" ? "polite" : "off", tabindex: 0 });
      this.answer.append(place);
    }
    place.append(typeof data === "string" && kind === "output" ? text : `${text.replace(/\n$/, "")}\n`);
    place.scrollTop = place.scrollHeight;
  }

  async end(prediction, mode) {
    // Who came back has not seen how long it took.
    const total = this.wasResumed ? lifeOf(prediction) : this.seconds();
    if (prediction.status === "canceled") return this.tellCanceled(total);
    if (prediction.status !== "succeeded") {
      this.status.textContent = `Failed after ${duration(total)}`;
      this.answer.append(showProblem({ title: "Failed", ...prediction.error }, { model: this.model.name, id: this.id }));
      return;
    }
    const streamed = mode === "stream" && this.answer.querySelector("pre.output, figure");
    const element = streamed ? null : await this.outputOf(prediction);
    this.finish(element, timingsOf(prediction), total);
  }

  /** Nothing is wrong with what somebody wanted. */
  tellCanceled(total) {
    this.status.textContent = `Canceled after ${duration(total)}`;
    const who = this.wasStopped ? "You canceled it" : this.wasResumed ? "It was canceled" : "Somebody else canceled it";
    this.answer.append(make("p", { class: "quiet", text: `${who}. Ask again whenever you like.` }));
  }

  /** A long output does not stand in its prediction. */
  async outputOf(prediction) {
    if (prediction.output_url === undefined) return showValue(prediction.output);
    const { response, body } = await this.gateway.output(prediction.id, this.patience());
    if (!(response.headers.get("Content-Type") ?? "").startsWith("application/json")) return showBody(response, body);
    return showValue(JSON.parse(await body.text()));
  }

  finish(element, timings, total) {
    this.status.textContent = `Answered in ${duration(total)}`;
    if (element) this.answer.append(element);
    if (timings) this.answer.append(showTimings(timings, this.wasResumed ? null : total));
  }

  async stop() {
    this.cancel.disabled = true;
    this.word = "Cancelling";
    this.wasStopped = true;
    if (this.id === null) return this.control.abort();
    await this.gateway.cancel(this.id, this.patience()).catch((error) => this.fail(error));
  }

  fail(error) {
    if (this.isLeft) return;
    if (error.name === "AbortError") {
      this.status.textContent = `Given up after ${duration(this.seconds())}`;
      return;
    }
    this.status.textContent = `No answer after ${duration(this.seconds())}`;
    const problem = error instanceof ProblemError ? error.problem : { code: "page-error", detail: String(error) };
    if (problem.status === 401) this.onKeyWanted(problem);
    this.answer.append(showProblem(problem, { model: this.model.name, id: this.id ?? problem.id }));
  }
}

/** Seconds from the making of `prediction`, which has ended, to its end. */
function lifeOf(prediction) {
  return (Date.parse(prediction.completed_at) - Date.parse(prediction.created_at)) / 1000;
}
