// A job's events by number: pages fetched when they are looked at, the least lately seen let go. Memory is bounded.

const PAGE = 400;
const MOST_PAGES = 100;
const MOST_FETCHES = 3;

export class Pages extends EventTarget {
  #pages = new Map();
  #wanted = new Map();
  #under = 0;

  constructor(jobId) {
    super();
    this.jobId = jobId;
    this.end = 0; // the number of the last event
    this.closed = false;
  }

  async open() {
    await this.#ask(Number.MAX_SAFE_INTEGER, 1);
  }

  get(seq) {
    const number = Math.floor((seq - 1) / PAGE);
    const page = this.#pages.get(number);
    const found = page?.[(seq - 1) % PAGE];
    if (page) {
      this.#pages.delete(number);
      this.#pages.set(number, page);
    }
    if (!found && seq >= 1 && seq <= this.end) this.#want(number);
    return found;
  }

  // Events that arrived live. Those of pages that nobody looks at are fetched when somebody does.
  add(events) {
    for (const event of events) {
      const number = Math.floor((event.seq - 1) / PAGE);
      let page = this.#pages.get(number);
      if (!page) {
        page = [];
        this.#pages.set(number, page);
        this.#trim();
      }
      page[(event.seq - 1) % PAGE] = event;
    }
    const last = events[events.length - 1];
    if (last) this.end = Math.max(this.end, last.seq);
  }

  async range(first, last) {
    const found = [];
    for (let seq = first; seq <= last; ) {
      const answer = await this.#ask(seq, Math.min(5000, last - seq + 1));
      if (!answer.events.length) break;
      found.push(...answer.events);
      seq = answer.next_seq;
    }
    return found;
  }

  close() {
    this.closed = true;
    this.#pages.clear();
  }

  #want(number) {
    if (this.#wanted.has(number)) return;
    this.#wanted.set(number, false);
    // The newest wish first: whoever scrolls by does not wait for what has passed.
    while (this.#wanted.size > 12) {
      const oldest = [...this.#wanted].find(([, under]) => !under);
      if (!oldest) break;
      this.#wanted.delete(oldest[0]);
    }
    queueMicrotask(() => this.#fetch());
  }

  async #fetch() {
    if (this.#under >= MOST_FETCHES || this.closed) return;
    const next = [...this.#wanted].filter(([, under]) => !under).pop();
    if (!next) return;
    const number = next[0];
    this.#wanted.set(number, true);
    this.#under += 1;
    try {
      let seq = number * PAGE + 1;
      const last = Math.min(this.end, seq + PAGE - 1);
      while (seq <= last) {
        const answer = await this.#ask(seq, last - seq + 1);
        if (!answer.events.length || this.closed) break;
        this.add(answer.events);
        seq = answer.next_seq;
      }
      this.dispatchEvent(new Event("arrived"));
    } catch {
      setTimeout(() => this.dispatchEvent(new Event("arrived")), 1000);
    } finally {
      this.#wanted.delete(number);
      this.#under -= 1;
      this.#fetch();
    }
  }

  async #ask(seq, limit) {
    const answer = await fetch(`/api/v1/jobs/${encodeURIComponent(this.jobId)}/events?from_seq=${seq}&limit=${limit}`);
    if (!answer.ok) throw new Error(`the events could not be read (${answer.status})`);
    this.end = Math.max(this.end, Number(answer.headers.get("blacktree-end-seq")));
    return answer.json();
  }

  #trim() {
    while (this.#pages.size > MOST_PAGES) this.#pages.delete(this.#pages.keys().next().value);
  }
}
