-- How a v1 image stands to a repository (ADR 12). `listed`: a list named it before it was pushed; by whom and when is kept.
-- `present`: it is to be read through the repository. `pushed`: and to be written. `deleted`: it was present until the
-- repository was deleted; `abandoned`: it was pushed. Only `present` and `pushed` open anything.
ALTER TABLE legacy_images ADD COLUMN standing TEXT NOT NULL DEFAULT 'present'
    CHECK (standing IN ('listed', 'present', 'pushed', 'deleted', 'abandoned'));
ALTER TABLE legacy_images ADD COLUMN named_by TEXT NOT NULL DEFAULT '';
ALTER TABLE legacy_images ADD COLUMN named_at INTEGER NOT NULL DEFAULT 0;
CREATE INDEX legacy_images_by_repository ON legacy_images (upstream, repository, image);
