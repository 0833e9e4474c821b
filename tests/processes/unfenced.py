"""Takes the guard out of what ends a task. See unfenced_settings."""

from django_bgtasks.db import base, mysql, postgresql, sqlite

postgresql._FINISH = postgresql._FINISH.replace("AND q.claim_id = o.c ", "")
sqlite._END = sqlite._END.replace("claim_id = %s", "%s IS NOT NULL")
sqlite._GONE = sqlite._GONE.replace("claim_id = %s", "%s IS NOT NULL")

_guarded = mysql.MySQLOperations._end


def _end(self, endings):
    with self.connection.cursor() as cursor:
        for ending in endings:
            cursor.execute(
                f"SELECT claim_id FROM {base.LIVE} WHERE id = %s", [self.id_to_db(ending.id)]
            )
            row = cursor.fetchone()
            if row and row[0]:
                ending.claim_id = self.id_from_db(row[0])
    return _guarded(self, endings)


mysql.MySQLOperations._end = _end
