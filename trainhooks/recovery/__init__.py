"""Any run, finished or killed, in a fresh process or notebook: `recover()` finds it and says what it found."""
