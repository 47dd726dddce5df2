// Search over the whole log, on the server, stretch by stretch; hits are numbers of events.

const MOST = 50_000;

export class Search {
  hits = [];
  done = true;
  #turn = 0;

  constructor(jobId, onChange) {
    this.jobId = jobId;
    this.onChange = onChange;
  }

  stop() {
    this.#turn += 1;
    this.done = true;
  }

  async start(question) {
    this.stop();
    const turn = this.#turn;
    this.hits = [];
    this.done = false;
    this.onChange();
    let seq = 1;
    while (seq !== null && turn === this.#turn && this.hits.length < MOST) {
      const query = new URLSearchParams({ ...question, from_seq: seq });
      const answer = await fetch(`/api/v1/jobs/${encodeURIComponent(this.jobId)}/search?${query}`);
      if (turn !== this.#turn) return;
      if (!answer.ok) throw new Error(`the search failed (${answer.status})`);
      const found = await answer.json();
      this.hits.push(...found.hits);
      seq = found.next_seq;
      this.onChange();
    }
    if (turn === this.#turn) {
      this.done = true;
      this.onChange();
    }
  }

  // The hit after (or before) this event; wraps around.
  next(seq, backwards = false) {
    if (!this.hits.length) return 0;
    if (backwards) return this.hits.findLast((hit) => hit < seq) ?? this.hits[this.hits.length - 1];
    return this.hits.find((hit) => hit > seq) ?? this.hits[0];
  }
}
