"""Audio front ends and one loader per corpus."""
