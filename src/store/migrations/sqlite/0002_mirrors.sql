-- What is known of what a mirror may give out: of manifests their media type, and sizes in bytes where somebody said them.
-- `proven`: the upstream itself gave or showed it through this repository; else only a manifest of it named it.
ALTER TABLE mirror_blobs ADD COLUMN media_type TEXT;
ALTER TABLE mirror_blobs ADD COLUMN size INTEGER CHECK (size >= 0);
ALTER TABLE mirror_blobs ADD COLUMN proven INTEGER NOT NULL DEFAULT 0;
CREATE INDEX mirror_blobs_by_age ON mirror_blobs (checked_at);
CREATE INDEX mirror_tags_by_age ON mirror_tags (checked_at);

-- What is kept in the disk cache whatever else is asked for, and for which image.
CREATE TABLE cache_pins (
    image TEXT NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (image, digest)
) STRICT, WITHOUT ROWID;
