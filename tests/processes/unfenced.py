"""Takes the guard out of what ends a task. See unfenced_settings."""

from django.db import connection

if connection.vendor == "postgresql":
    from django_bgtasks.db import postgresql

    postgresql._FINISH = postgresql._FINISH.replace("AND q.claim_id = o.c ", "")
elif connection.vendor == "sqlite":
    from django_bgtasks.db import sqlite

    sqlite._END = sqlite._END.replace("claim_id = %s", "%s IS NOT NULL")
    sqlite._GONE = sqlite._GONE.replace("claim_id = %s", "%s IS NOT NULL")
else:
    from django_bgtasks.db import mysql

    _guarded = mysql.MySQLOperations._end

    def _end(self, endings):
        with self.connection.cursor() as cursor:
            for ending in endings:
                cursor.execute(
                    f"SELECT claim_id FROM {mysql.LIVE} WHERE id = %s", [self.id_to_db(ending.id)]
                )
                row = cursor.fetchone()
                if row and row[0]:
                    ending.claim_id = self.id_from_db(row[0])
        return _guarded(self, endings)

    mysql.MySQLOperations._end = _end
