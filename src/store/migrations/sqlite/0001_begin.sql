-- Times are milliseconds since 1970. Digests are text, as the protocol writes them. Text compares by bytes.

CREATE TABLE repositories (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    created_at INTEGER NOT NULL
) STRICT;

-- A row means: the file under `key` is whole, verified and synced.
CREATE TABLE blobs (
    digest TEXT NOT NULL PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    size INTEGER NOT NULL CHECK (size >= 0),
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Taken out of `blobs`; unlinked after the readers' grace.
CREATE TABLE trash (
    key TEXT NOT NULL PRIMARY KEY,
    deleted_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE repository_blobs (
    repository INTEGER NOT NULL REFERENCES repositories (id),
    digest TEXT NOT NULL REFERENCES blobs (digest),
    linked_at INTEGER NOT NULL,
    PRIMARY KEY (repository, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX repository_blobs_by_digest ON repository_blobs (digest);

CREATE TABLE manifests (
    repository INTEGER NOT NULL REFERENCES repositories (id),
    digest TEXT NOT NULL,
    media_type TEXT NOT NULL,
    artifact_type TEXT,
    subject TEXT,
    size INTEGER NOT NULL CHECK (size >= 0),
    bytes BLOB NOT NULL,
    pushed_at INTEGER NOT NULL,
    pushed_by TEXT NOT NULL,
    last_pulled_at INTEGER,
    PRIMARY KEY (repository, digest)
) STRICT;
CREATE INDEX manifests_by_subject ON manifests (repository, subject, digest) WHERE subject IS NOT NULL;

-- What keeps a blob or a child alive.
CREATE TABLE manifest_references (
    repository INTEGER NOT NULL,
    manifest TEXT NOT NULL,
    position INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('config', 'layer', 'manifest')),
    digest TEXT NOT NULL,
    PRIMARY KEY (repository, manifest, position),
    FOREIGN KEY (repository, manifest) REFERENCES manifests (repository, digest) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX manifest_references_by_digest ON manifest_references (digest, repository);

CREATE TABLE tags (
    repository INTEGER NOT NULL,
    name TEXT NOT NULL,
    digest TEXT NOT NULL,
    updated_at INTEGER NOT NULL,
    updated_by TEXT NOT NULL,
    PRIMARY KEY (repository, name),
    FOREIGN KEY (repository, digest) REFERENCES manifests (repository, digest) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX tags_by_digest ON tags (repository, digest);

-- `repository` is a name: an upload that is given up must not leave an empty repository behind.
CREATE TABLE uploads (
    id TEXT NOT NULL PRIMARY KEY,
    repository TEXT NOT NULL,
    principal TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    last_write_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What may be read through one repository of an upstream.
CREATE TABLE mirror_blobs (
    upstream TEXT NOT NULL,
    repository TEXT NOT NULL,
    digest TEXT NOT NULL,
    checked_at INTEGER NOT NULL,
    PRIMARY KEY (upstream, repository, digest)
) STRICT, WITHOUT ROWID;

CREATE TABLE legacy_images (
    upstream TEXT NOT NULL,
    image TEXT NOT NULL,
    repository TEXT NOT NULL,
    PRIMARY KEY (upstream, image, repository)
) STRICT, WITHOUT ROWID;

CREATE TABLE mirror_tags (
    upstream TEXT NOT NULL,
    repository TEXT NOT NULL,
    tag TEXT NOT NULL,
    digest TEXT,
    media_type TEXT,
    checked_at INTEGER NOT NULL,
    status TEXT NOT NULL,
    PRIMARY KEY (upstream, repository, tag)
) STRICT, WITHOUT ROWID;

CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    created_at INTEGER NOT NULL,
    event TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    next_at INTEGER NOT NULL
) STRICT;
CREATE INDEX outbox_by_next ON outbox (endpoint, next_at);

CREATE TABLE settings (
    key TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;
