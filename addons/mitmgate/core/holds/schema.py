"""The tables of the hold store, as the steps from each version to the next.

A new file takes all of them, an older one those that it lacks. What is written here is never
changed, since files that were made by it exist; what changes comes as a further step.
"""

from __future__ import annotations

APPLICATION = 0x6D676174  # "mgat": tells a hold store from any other SQLite file

STEPS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE hold (
          id TEXT PRIMARY KEY, digest TEXT NOT NULL, principal TEXT NOT NULL, issuer TEXT NOT NULL,
          subject TEXT NOT NULL, operation TEXT NOT NULL, model TEXT NOT NULL, rules TEXT NOT NULL,
          message TEXT NOT NULL, excerpt TEXT NOT NULL, exchange TEXT NOT NULL,
          created REAL NOT NULL, expires REAL NOT NULL, quorum INTEGER NOT NULL,
          state TEXT NOT NULL, decisions TEXT NOT NULL
        ) STRICT""",
        """CREATE UNIQUE INDEX one_live_hold ON hold (digest)
          WHERE state IN ('pending', 'approved')""",
        "CREATE INDEX hold_digest ON hold (digest, created)",
        "CREATE INDEX hold_state ON hold (state, created)",
        """CREATE TABLE waiter (
          hold TEXT NOT NULL REFERENCES hold, exchange TEXT NOT NULL, until REAL NOT NULL,
          PRIMARY KEY (hold, exchange)
        ) STRICT""",
        f"PRAGMA application_id = {APPLICATION}",
    ),
    (
        "ALTER TABLE hold ADD COLUMN display TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE hold ADD COLUMN person TEXT NOT NULL DEFAULT '[]'",
        "ALTER TABLE hold ADD COLUMN why TEXT NOT NULL DEFAULT '[]'",
        # Only what somebody may still decide about; history stays as it was written.
        """UPDATE hold SET person = json_array(subject),
          why = (SELECT json_group_array(json_object(
            'rule', value, 'title', '', 'message', message)) FROM json_each(rules)),
          decisions = (SELECT json_group_array(json_set(
            value, '$.person', json_array(json_extract(value, '$.subject'))))
            FROM json_each(decisions))
          WHERE state IN ('pending', 'approved')""",
        "CREATE INDEX hold_created ON hold (created)",
        "CREATE INDEX waiter_exchange ON waiter (exchange)",
        # In a table of its own, since it is large and read for one hold at a time.
        """CREATE TABLE prompt (
          hold TEXT PRIMARY KEY REFERENCES hold, passages TEXT NOT NULL
        ) STRICT""",
        """CREATE TRIGGER prompt_goes AFTER UPDATE OF state ON hold
          WHEN NEW.state NOT IN ('pending', 'approved')
          BEGIN DELETE FROM prompt WHERE prompt.hold = NEW.id; END""",
        # Counts what people would see change. A lease that is renewed is no change.
        "CREATE TABLE change (number INTEGER NOT NULL) STRICT",
        "INSERT INTO change VALUES (0)",
        *(
            f"CREATE TRIGGER {name}_counts AFTER {event}"  # noqa: S608 - the words below
            " BEGIN UPDATE change SET number = number + 1; END"
            for name, event in (
                ("new_hold", "INSERT ON hold"),
                ("decided_hold", "UPDATE OF state, decisions ON hold"),
                ("new_waiter", "INSERT ON waiter"),
                ("gone_waiter", "DELETE ON waiter"),
            )
        ),
    ),
)
VERSION = len(STEPS)
