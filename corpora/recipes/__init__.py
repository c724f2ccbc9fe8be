"""One loader per corpus; the layouts that folders of speech corpora have."""
