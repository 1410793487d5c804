"""What to change when a config does not fit, in order of how little it costs the user."""
