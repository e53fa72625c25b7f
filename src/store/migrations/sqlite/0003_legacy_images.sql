-- How a v1 image stands to a repository. `listed`: a list named it before it was pushed, which opens nothing. `present`: it is
-- to be read through the repository. `pushed`: and to be written. `deleted`: it was in it until the repository was deleted,
-- which opens nothing.
ALTER TABLE legacy_images ADD COLUMN standing TEXT NOT NULL DEFAULT 'present'
    CHECK (standing IN ('listed', 'present', 'pushed', 'deleted'));
CREATE INDEX legacy_images_by_repository ON legacy_images (upstream, repository, image);
