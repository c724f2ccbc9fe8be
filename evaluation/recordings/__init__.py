"""Input and output of recordings: files, blocks of long recordings, and sounds that are written block by block."""
