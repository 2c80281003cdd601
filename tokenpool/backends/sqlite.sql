-- One pool in one file. Statements are run one by one inside one transaction; none may hold a semicolon of its own.

-- `state`, `ready`, `batch`, `priority` and `holder` are computed from `body` at every write (tokenpool.transitions), never set alone.
-- `body` is the document without _id, _rev and _attachments; `stubs` describes its attachments, so that reading a
-- document never touches a log.
CREATE TABLE documents (
    seq      INTEGER PRIMARY KEY,
    id       TEXT    NOT NULL UNIQUE,
    rev      TEXT    NOT NULL,
    type     TEXT,
    state    TEXT,                          -- NULL: not a token
    ready    INTEGER NOT NULL DEFAULT 0,    -- 1: todo, and nobody asked it to stop
    batch    TEXT    NOT NULL DEFAULT '',
    priority REAL    NOT NULL DEFAULT 0,
    holder   TEXT,                          -- of a locked token: the worker of its lease, '' if none; else NULL
    body     TEXT    NOT NULL,
    stubs    TEXT
);

-- A blob is written once and never changed: a new body gets a new number. So a reader needs no lock.
CREATE TABLE pieces (
    blob INTEGER NOT NULL,
    part INTEGER NOT NULL,
    data BLOB    NOT NULL,
    UNIQUE (blob, part)
);

-- Counting, and listing a state of a batch in the order of submission.
CREATE INDEX documents_count ON documents (state, batch) WHERE state IS NOT NULL;

-- Listing a state, or a batch, in the order of submission.
CREATE INDEX documents_state ON documents (state) WHERE state IS NOT NULL;
CREATE INDEX documents_batch ON documents (batch) WHERE state IS NOT NULL;

-- What a worker may claim: any, or of a batch. Partial: a million finished tokens cost a claim nothing.
CREATE INDEX documents_ready ON documents (priority DESC) WHERE ready = 1;
CREATE INDEX documents_ready_batch ON documents (batch, priority DESC) WHERE ready = 1;

-- Who holds what.
CREATE INDEX documents_holder ON documents (holder, batch) WHERE holder IS NOT NULL;

-- The rules of batches, whatever the tokens are called.
CREATE INDEX documents_rules ON documents (id) WHERE type = 'batch';

-- What held tokens wait for, and failed ones would: computed at every write that such a token takes part in.
CREATE TABLE waits (
    kind TEXT NOT NULL,                     -- due, parent, closed
    key  NOT NULL,                          -- a time, or the id of a parent
    id   TEXT NOT NULL,
    PRIMARY KEY (kind, key, id)
) WITHOUT ROWID;
CREATE INDEX waits_id ON waits (id);
