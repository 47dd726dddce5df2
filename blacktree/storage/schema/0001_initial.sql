-- Bodies are msgpack; a column exists only where something is asked for by it. Times are microseconds since 1970.

CREATE TABLE job (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    key TEXT UNIQUE,
    state TEXT NOT NULL,
    pool TEXT NOT NULL,
    priority INTEGER NOT NULL,
    created INTEGER NOT NULL,
    finished INTEGER,
    next_seq INTEGER NOT NULL,
    text_size INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX job_newest ON job (created, id);
CREATE INDEX job_state ON job (state, created, id);
CREATE INDEX job_queued ON job (id) WHERE state = 'queued';
CREATE INDEX job_line ON job (pool, priority, id) WHERE state = 'queued';
CREATE INDEX job_finished ON job (finished) WHERE finished IS NOT NULL;

-- Records of batches without log lines, one a row.
CREATE TABLE mark (
    job INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (job, seq)
) WITHOUT ROWID;

-- Segment files of batches with log lines: what lies beyond `length` was never committed.
CREATE TABLE segment (
    job INTEGER NOT NULL,
    number INTEGER NOT NULL,
    length INTEGER NOT NULL,
    packed INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (job, number)
) WITHOUT ROWID;

-- Where some of the blocks begin: the first of each segment, then one every 64 KiB or so.
CREATE TABLE block (
    job INTEGER NOT NULL,
    first_seq INTEGER NOT NULL,
    text_first INTEGER NOT NULL,
    segment INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    PRIMARY KEY (job, first_seq)
) WITHOUT ROWID;
CREATE INDEX block_text ON block (job, text_first, first_seq);

CREATE TABLE outbox (
    id INTEGER PRIMARY KEY,
    job_id TEXT NOT NULL,
    body BLOB NOT NULL
);

CREATE TABLE queue (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    priority INTEGER NOT NULL,
    deliveries INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX queue_next ON queue (name, priority DESC, id);

CREATE TABLE farm (
    seq INTEGER PRIMARY KEY,
    body BLOB NOT NULL
);

CREATE TABLE setting (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;
