BEGIN TRANSACTION;
CREATE TABLE checkpoints (
        run_id     TEXT NOT NULL REFERENCES runs(run_id) ON DELETE CASCADE,
        path       TEXT NOT NULL,
        step       INTEGER,
        created_at REAL,
        metrics    TEXT NOT NULL,
        PRIMARY KEY (run_id, path)
    );
INSERT INTO "checkpoints" VALUES('run-a','/runs/a/step-3',3,6.0,'{"val/loss": 0.5}');
CREATE TABLE metrics (
        run_id TEXT NOT NULL REFERENCES runs(run_id) ON DELETE CASCADE,
        name   TEXT NOT NULL,
        best   REAL,
        last   REAL,
        rows   INTEGER NOT NULL,
        PRIMARY KEY (run_id, name)
    );
INSERT INTO "metrics" VALUES('run-a','val/loss',0.5,0.7,9);
CREATE TABLE runs (
        run_id     TEXT PRIMARY KEY,
        origin     TEXT REFERENCES runs(run_id),
        directory  TEXT NOT NULL,
        config     TEXT NOT NULL,
        created_at REAL NOT NULL
    );
INSERT INTO "runs" VALUES('run-a',NULL,'/runs/a','{"lr": 0.1, "layers": [1, 2]}',5.0);
INSERT INTO "runs" VALUES('run-a_recovered','run-a','/runs/a','{"lr": 0.1, "layers": [1, 2]}',9.0);
CREATE TABLE sessions (
        run_id     TEXT NOT NULL REFERENCES runs(run_id) ON DELETE CASCADE,
        attempt    INTEGER NOT NULL,
        started_at REAL,
        ended_at   REAL,
        status     TEXT,
        PRIMARY KEY (run_id, attempt)
    );
INSERT INTO "sessions" VALUES('run-a',1,5.0,7.0,'closed');
CREATE TABLE tags (
        run_id TEXT NOT NULL REFERENCES runs(run_id) ON DELETE CASCADE,
        tag    TEXT NOT NULL,
        PRIMARY KEY (run_id, tag)
    );
INSERT INTO "tags" VALUES('run-a','best');
COMMIT;
PRAGMA user_version = 1;
