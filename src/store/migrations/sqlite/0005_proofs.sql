-- Which upstream itself sent the bytes of a digest (ADR 9): what only another one sent is not given through it.
CREATE TABLE mirror_sent (
    upstream TEXT NOT NULL,
    digest TEXT NOT NULL,
    used_at INTEGER NOT NULL,
    PRIMARY KEY (upstream, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX mirror_sent_by_age ON mirror_sent (used_at);
