-- The CRC-32C of each 64 KiB of a blob's file, four bytes each, little endian (ADR 14). They are only made from bytes that
-- hashed right; a blob without a row was there before this table, and gets one by a pass in the background.
CREATE TABLE blob_sums (
    digest TEXT NOT NULL PRIMARY KEY REFERENCES blobs (digest) ON DELETE CASCADE,
    sums BLOB NOT NULL
) STRICT;

-- Since when it is known that the file is not what its digest says, or is gone: as if the blob were not there, until
-- somebody pushes it again. Links to it stay.
ALTER TABLE blobs ADD COLUMN rotten_at INTEGER;
CREATE INDEX blobs_rotten ON blobs (rotten_at) WHERE rotten_at IS NOT NULL;
