"""The schema of the experiment database, as migrations."""

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE runs (
        run_id     TEXT PRIMARY KEY,
        origin     TEXT REFERENCES runs(run_id),
        directory  TEXT NOT NULL,
        config     TEXT NOT NULL,
        created_at REAL NOT NULL
    );
    CREATE TABLE sessions (
        run_id     TEXT NOT NULL REFERENCES runs(run_id) ON DELETE CASCADE,
        attempt    INTEGER NOT NULL,
        started_at REAL,
        ended_at   REAL,
        status     TEXT,
        PRIMARY KEY (run_id, attempt)
    );
    CREATE TABLE checkpoints (
        run_id     TEXT NOT NULL REFERENCES runs(run_id) ON DELETE CASCADE,
        path       TEXT NOT NULL,
        step       INTEGER,
        created_at REAL,
        metrics    TEXT NOT NULL,
        PRIMARY KEY (run_id, path)
    );
    CREATE TABLE metrics (
        run_id TEXT NOT NULL REFERENCES runs(run_id) ON DELETE CASCADE,
        name   TEXT NOT NULL,
        best   REAL,
        last   REAL,
        rows   INTEGER NOT NULL,
        PRIMARY KEY (run_id, name)
    );
    CREATE TABLE tags (
        run_id TEXT NOT NULL REFERENCES runs(run_id) ON DELETE CASCADE,
        tag    TEXT NOT NULL,
        PRIMARY KEY (run_id, tag)
    );
    """,
    """
    ALTER TABLE runs ADD COLUMN name TEXT NOT NULL DEFAULT '';
    ALTER TABLE runs ADD COLUMN total_steps INTEGER;
    ALTER TABLE sessions ADD COLUMN step INTEGER;
    ALTER TABLE sessions ADD COLUMN pid INTEGER;
    ALTER TABLE sessions ADD COLUMN host TEXT;
    ALTER TABLE sessions ADD COLUMN seen_at REAL;
    ALTER TABLE metrics ADD COLUMN step INTEGER;
    """,
)
"""Applied in order, once each; `PRAGMA user_version` counts them. A published one is never changed."""
