"""Pages as a browser shows them: with the machine's own Chromium, which is not downloaded."""
