"""Code made from buildkit.proto; see the command there."""
