"""What a run is launched on: resolution, the process launcher and its spool."""
