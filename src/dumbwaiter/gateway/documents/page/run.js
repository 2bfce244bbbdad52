// Asking one model, and showing how it goes.

import { showProblem, showResponse, showTimings, showValue, timingsOf } from "./answer.js";
import { ProblemError, isFinal } from "./asking.js";
import { duration, make } from "./elements.js";

/** One model's panel while it is asked: at most one request at a time. */
export class Run {
  /** `onKeyWanted(problem)` hears of a key that the gateway does not take. */
  constructor({ gateway, model, answer, status, ask, cancel, idLine, onKeyWanted }) {
    Object.assign(this, { gateway, model, answer, status, ask, cancel, idLine, onKeyWanted });
    cancel.addEventListener("click", () => this.stop());
  }

  async start(input, mode) {
    this.control = new AbortController();
    this.id = null;
    this.wasStopped = false;
    this.began = performance.now();
    this.word = mode === "wait" ? "Waiting for the answer" : "Handing it in";
    this.ask.disabled = true;
    this.cancel.disabled = false;
    this.answer.replaceChildren();
    this.idLine.textContent = "";
    const clock = setInterval(() => this.tick(), 100);
    try {
      await (mode === "wait" ? this.waitFor(input) : this.keepAndLook(input, mode));
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
    if (!this.control.signal.aborted) this.status.textContent = `${this.word}, ${this.seconds().toFixed(1)} s`;
  }

  async waitFor(input) {
    const response = await this.gateway.ask(this.model.name, input, { signal: this.control.signal });
    const total = this.seconds();
    const { prediction, element } = await showResponse(response);
    this.finish(element, timingsOf(prediction, response), total);
  }

  async keepAndLook(input, mode) {
    const { signal } = this.control;
    const response = await this.gateway.ask(this.model.name, input, { later: true, signal });
    let prediction = await response.json();
    this.id = prediction.id;
    this.idLine.textContent = this.id;
    this.tell(prediction);
    if (mode === "stream") {
      prediction = await this.gateway.follow(this.id, { signal, onEvent: (event) => this.take(event) });
    } else if (!isFinal(prediction)) {
      prediction = await this.gateway.poll(this.id, { signal, onState: (state) => this.tell(state) });
    }
    await this.end(prediction, mode);
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
    const total = this.seconds();
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
    const who = this.wasStopped ? "You canceled it" : "Somebody else canceled it";
    this.answer.append(make("p", { class: "quiet", text: `${who}. Ask again whenever you like.` }));
  }

  /** A long output stands in a prediction as a link to itself. */
  async outputOf(prediction) {
    const link = prediction.urls?.output;
    if (link === undefined || prediction.output !== link) return showValue(prediction.output);
    const response = await this.gateway.fetch(this.gateway.prediction(prediction.id, "/output"), { signal: this.control.signal });
    if (!(response.headers.get("Content-Type") ?? "").startsWith("application/json")) return (await showResponse(response)).element;
    return showValue(await response.json());
  }

  finish(element, timings, total) {
    this.status.textContent = `Answered in ${duration(total)}`;
    if (element) this.answer.append(element);
    if (timings) this.answer.append(showTimings(timings, total));
  }

  async stop() {
    this.cancel.disabled = true;
    this.word = "Cancelling";
    this.wasStopped = true;
    if (this.id === null) return this.control.abort();
    await this.gateway.cancel(this.id).catch((error) => this.fail(error));
  }

  fail(error) {
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
