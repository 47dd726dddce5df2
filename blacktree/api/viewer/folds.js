// Which events are out of sight, because their step is folded, they are not those asked for, or they are no longer
// kept: numbers to rows and back.

import { read } from "./read.js";

const MOST_STRETCHES = 200_000;

export const keyOf = (event) => `${event.attempt}/${event.step}`;

export class Folds {
  #stretches = new Map(); // of each step, where it lies; known up to `#known`
  #known = 0;
  #asking = null;
  #ranges = []; // hidden, in order, apart from each other
  #before = []; // how many are hidden before each of them
  #only = ""; // where keys of what is shown alone begin
  folded = new Set();

  constructor(pages) {
    this.pages = pages;
    this.#build();
  }

  // Rows are counted from 0.
  get rows() {
    return Math.max(0, this.pages.end - this.#hidden(this.pages.end));
  }

  seqAt(row) {
    let low = 0;
    let high = this.#ranges.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#ranges[middle][0] - 1 - this.#before[middle] <= row) low = middle + 1;
      else high = middle;
    }
    return row + 1 + (low ? this.#before[low - 1] + this.#length(low - 1) : 0);
  }

  // The row of an event; of one out of sight, the one before.
  rowOf(seq) {
    return Math.max(0, seq - this.#hidden(seq) - (this.hides(seq) ? 0 : 1));
  }

  hides(seq) {
    const [first, last] = this.#ranges[this.#index(seq)] ?? [0, -1];
    return seq >= first && seq <= last;
  }

  lines(key) {
    return (this.#stretches.get(key) ?? []).reduce((sum, [first, last]) => sum + last - first + 1, 0);
  }

  async toggle(key) {
    if (this.folded.delete(key)) {
      this.#build();
      return;
    }
    await this.learn();
    this.folded.add(key);
    this.#build();
  }

  get only() {
    return this.#only;
  }

  get any() {
    return Boolean(this.folded.size || this.#only);
  }

  // Show nothing but the output of attempts (versions) or steps (replicas) whose keys begin so; empty: everything.
  async show(only) {
    if (only) await this.learn();
    this.#only = only;
    this.#build();
  }

  async all(fold) {
    this.folded.clear();
    if (fold) {
      await this.learn();
      for (const key of this.#stretches.keys()) this.folded.add(key);
    }
    this.#build();
  }

  // Unfold whatever hides this event; whether something did.
  reveal(seq) {
    let found = false;
    for (const [key, list] of this.#stretches) {
      if (this.#out(key) && list.some(([first, last]) => seq >= first && seq <= last)) {
        this.folded.delete(key);
        if (this.#out(key)) this.#only = "";
        found = true;
      }
    }
    if (found) this.#build();
    return found;
  }

  // Where each step lies, up to the end as it is now.
  learn() {
    this.#asking ??= this.#learn().finally(() => {
      this.#asking = null;
    });
    return this.#asking;
  }

  async #learn() {
    let done = false;
    while (!done && !this.pages.closed) {
      const { value } = await read(`${this.pages.base}/outline`, { from_seq: this.#known + 1 });
      for (const [first, last, step, attempt] of value.stretches) this.#add(`${attempt}/${step}`, first, last);
      this.#known = Math.max(this.#known, value.next_seq - 1);
      done = value.done;
    }
  }

  // Events that arrived: those of folded steps go out of sight at once.
  hear(events) {
    this.#base();
    if (!this.#known || !events.length) return;
    if (events[0].seq > this.#known + 1) {
      this.learn().then(() => this.#build(), () => {});
      return;
    }
    for (const event of events) {
      if (event.seq <= this.#known) continue;
      this.#known = event.seq;
      if (!event.step || event.type === "step_started" || event.type === "state") continue;
      const key = keyOf(event);
      this.#add(key, event.seq, event.seq);
      if (this.#out(key)) this.#hide(event.seq);
    }
  }

  #out(key) {
    const only = this.#only;
    return this.folded.has(key) || !(only.endsWith("/") || !only ? key.startsWith(only) : key === only);
  }

  #add(key, first, last) {
    let list = this.#stretches.get(key);
    if (!list) this.#stretches.set(key, (list = []));
    const end = list[list.length - 1];
    if (end && end[1] >= first - 1) end[1] = Math.max(end[1], last);
    else if (list.length < MOST_STRETCHES) list.push([first, last]);
  }

  #hide(seq) {
    const end = this.#ranges[this.#ranges.length - 1];
    if (end && end[1] === seq - 1) end[1] = seq;
    else {
      this.#before.push(end ? this.#before[this.#before.length - 1] + end[1] - end[0] + 1 : 0);
      this.#ranges.push([seq, seq]);
    }
  }

  // What is no longer kept, at the beginning.
  #base() {
    if (this.pages.first > 1 && this.#ranges[0]?.[1] !== this.pages.first - 1) this.#build();
  }

  #build() {
    const keys = this.#only ? [...this.#stretches.keys()].filter((key) => this.#out(key)) : [...this.folded];
    const parts = keys.flatMap((key) => this.#stretches.get(key) ?? []).map(([first, last]) => [first, last]);
    if (this.pages.first > 1) parts.push([1, this.pages.first - 1]);
    parts.sort((one, other) => one[0] - other[0]);
    this.#ranges = [];
    for (const part of parts) {
      const end = this.#ranges[this.#ranges.length - 1];
      if (end && part[0] <= end[1] + 1) end[1] = Math.max(end[1], part[1]);
      else this.#ranges.push(part);
    }
    let sum = 0;
    this.#before = this.#ranges.map((_, index) => {
      const before = sum;
      sum += this.#length(index);
      return before;
    });
  }

  refresh() {
    this.#base();
  }

  #length(index) {
    return this.#ranges[index][1] - this.#ranges[index][0] + 1;
  }

  // The last range that begins at or before this number; -1 if there is none.
  #index(seq) {
    let low = 0;
    let high = this.#ranges.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#ranges[middle][0] <= seq) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }

  // How many up to and with this number are out of sight.
  #hidden(seq) {
    const index = this.#index(seq);
    if (index < 0) return 0;
    return this.#before[index] + Math.min(seq, this.#ranges[index][1]) - this.#ranges[index][0] + 1;
  }
}
