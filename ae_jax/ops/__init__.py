"""The few primitives worth writing for speed."""
