function (doc) {
  // What somebody must come back to: held tokens by their time and by each parent, tokens closed because of a parent,
  // tokens with conflicting revisions, and done ones that others may take the results of. The same rows as tokenpool.backends.sqlite_rows.waits_of.
  if (doc.type == "token") {
    var held = doc.done == 0 && doc.lock == -1, kind = held ? "parent" : "", list = doc.depends_on, seen = {}, i, last;
    if (!held && doc.lock > 0 && doc.done > 0 && parseInt(doc.exit_code) != 0) {
      last = Array.isArray(doc.attempts) ? doc.attempts[doc.attempts.length - 1] : null;
      if (last && last.failure_class === "dependency") { kind = "closed"; }
    }
    if (held && typeof doc.not_before == "number") { emit(["due", doc.not_before], null); }
    for (i = 0; kind && Array.isArray(list) && i < list.length; i++) {
      if (typeof list[i] == "string" && !seen["$" + list[i]]) {
        seen["$" + list[i]] = true;
        emit([kind, list[i]], null);
      }
    }
    if (typeof doc.reuse_key == "string" && doc.reuse_key && doc.lock > 0 && doc.done > 0 && parseInt(doc.exit_code) == 0) {
      emit(["reuse", doc.reuse_key], null);
    }
    if (doc._conflicts) { emit(["conflict", doc._id], null); }
  }
}
