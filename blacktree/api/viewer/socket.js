// One websocket for the whole page: calls, watches that resume by themselves, and how the connection stands.

import { tell } from "./format.js";
import { session } from "./read.js";

const FIRST_WAIT = 300;
const LONGEST_WAIT = 15000;

export class Refused extends Error {
  constructor(error) {
    super(error.message);
    this.code = error.code;
    this.data = error.data ?? {};
  }
}

// The connection went before the answer came: whether it was done is not known.
class Lost extends Error {}

export class Connection extends EventTarget {
  #socket = null;
  #next = 1;
  #calls = new Map();
  #watches = new Map();
  #subscriptions = new Set();
  #wait = FIRST_WAIT;
  #timer = 0;
  state = "connecting";

  constructor(address) {
    super();
    this.address = address;
    addEventListener("online", () => this.#again());
    session.addEventListener("ended", () => this.#forgotten());
    this.#open();
  }

  // Ask for something. Waits for a connection that is being made; fails if it is lost before the answer.
  async call(method, params = {}) {
    if (this.state !== "open") await this.#opened();
    return this.#send(method, params);
  }

  // As `call`, for what may be asked twice: asked again for as long as the connection is lost before the answer.
  async ask(method, params = {}) {
    for (;;) {
      try {
        return await this.call(method, params);
      } catch (error) {
        if (!(error instanceof Lost)) throw error;
      }
    }
  }

  // Watch something until `close()` is called. `params()` is asked anew after each loss, so that it can resume.
  watch(method, params, on) {
    const subscription = { method, params, on, number: null, lost: false, closed: false };
    this.#subscriptions.add(subscription);
    if (this.state === "open") this.#begin(subscription);
    return {
      close: () => {
        subscription.closed = true;
        this.#subscriptions.delete(subscription);
        if (subscription.number !== null) this.#unwatch(subscription.number);
      },
    };
  }

  #unwatch(number) {
    this.#watches.delete(number);
    if (this.state === "open") this.#send("job.unwatch", { watch: number }).catch(() => {});
  }

  #opened() {
    return new Promise((done) => {
      const look = () => {
        if (this.state !== "open") return;
        this.removeEventListener("state", look);
        done();
      };
      this.addEventListener("state", look);
    });
  }

  #say(state, detail = "") {
    this.state = state;
    this.detail = detail;
    this.dispatchEvent(new Event("state"));
  }

  #open() {
    clearTimeout(this.#timer);
    const socket = new WebSocket(this.address);
    this.#socket = socket;
    socket.onopen = () => {
      this.#wait = FIRST_WAIT;
      this.#say("open");
      for (const each of this.#subscriptions) this.#begin(each);
    };
    socket.onmessage = (message) => this.#take(JSON.parse(message.data));
    socket.onclose = () => this.#lost();
  }

  #again() {
    if (this.state === "lost") this.#open();
  }

  // Our session is no longer known: nothing is tried until somebody logs in.
  #forgotten() {
    if (this.state === "unknown") return;
    clearTimeout(this.#timer);
    this.#socket.onclose = null;
    this.#socket.close();
    for (const { fail } of this.#calls.values()) fail(new Error("the session has ended"));
    this.#calls.clear();
    this.#watches.clear();
    this.#say("unknown");
  }

  async #lost() {
    for (const { fail } of this.#calls.values()) fail(new Lost("the connection was lost: look whether it was done"));
    this.#calls.clear();
    this.#watches.clear();
    for (const each of this.#subscriptions) {
      each.lost = each.number !== null || each.lost;
      each.number = null;
    }
    this.#say("lost");
    this.#wait = Math.min(this.#wait * 1.7, LONGEST_WAIT);
    // Browsers do not tell why an upgrade failed: ask the plain way whether we are still known.
    try {
      const answer = await fetch("/api/v1/jobs?limit=1", { headers: { accept: "application/json" } });
      if (answer.status === 401) {
        this.#forgotten();
        return;
      }
    } catch {
      // Nobody there: go on trying.
    }
    this.#timer = setTimeout(() => this.#open(), this.#wait * (0.7 + Math.random() * 0.6));
  }

  #send(method, params) {
    const id = this.#next++;
    return new Promise((done, fail) => {
      this.#calls.set(id, { done, fail });
      this.#socket.send(JSON.stringify({ jsonrpc: "2.0", id, method, params }));
    });
  }

  async #begin(subscription) {
    const resumed = subscription.lost;
    try {
      const id = this.#next++;
      const answer = new Promise((done, fail) => this.#calls.set(id, { done, fail, subscription }));
      this.#socket.send(
        JSON.stringify({ jsonrpc: "2.0", id, method: subscription.method, params: subscription.params() }),
      );
      const result = await answer;
      if (subscription.closed) return;
      subscription.lost = false;
      subscription.on.begun?.(result, resumed);
    } catch (error) {
      if (error instanceof Refused && !subscription.closed) (subscription.on.refused ?? tell)(error);
    }
  }

  #take(message) {
    if (message.id !== undefined) {
      const call = this.#calls.get(message.id);
      this.#calls.delete(message.id);
      if (!call) return;
      if (message.error) {
        call.fail(new Refused(message.error));
        return;
      }
      // Before anything that follows is read, so that no notification of a new watch is missed.
      if (call.subscription?.closed) this.#unwatch(message.result.watch);
      else if (call.subscription) {
        call.subscription.number = message.result.watch;
        this.#watches.set(message.result.watch, call.subscription);
      }
      call.done(message.result);
      return;
    }
    const subscription = this.#watches.get(message.params?.watch);
    if (!subscription || subscription.closed) return;
    if (message.method === "watch.failed") {
      this.#watches.delete(message.params.watch);
      subscription.number = null;
      (subscription.on.refused ?? tell)(new Refused(message.params.error));
      return;
    }
    subscription.on[message.method]?.(message.params);
    if (message.method === "job.end") this.#watches.delete(message.params.watch);
  }
}
