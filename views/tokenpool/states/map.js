function (doc) {
  // Every token once, by its derived state and batch: the same table as tokenpool.transitions.state_of.
  if (doc.type == "token") {
    var state = "invalid";
    if (doc.done == 0) {
      if (doc.lock == 0) { state = "todo"; }
      else if (doc.lock == -1) { state = "held"; }
      else if (doc.lock > 0) { state = "locked"; }
    } else if (doc.lock > 0 && doc.done > 0) {
      state = parseInt(doc.exit_code) == 0 ? "done" : "error";
    }
    emit([state, String(doc.batch || "")], null);
  }
}
