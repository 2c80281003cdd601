function (doc) {
  // Every token once, by its derived state and batch: the same table as tokenpool.transitions.state_of. A locked one
  // by the worker of its lease too, as tokenpool.transitions.holder_of: a lease counts while lock and host are its own.
  if (doc.type == "token") {
    var state = "invalid", worker = "", lease = doc.lease;
    if (doc.done == 0) {
      if (doc.lock == 0) { state = "todo"; }
      else if (doc.lock == -1) { state = "held"; }
      else if (doc.lock > 0) { state = "locked"; }
    } else if (doc.lock > 0 && doc.done > 0) {
      state = parseInt(doc.exit_code) == 0 ? "done" : "error";
    }
    if (state == "locked" && lease && typeof lease.worker == "string" && lease.lock === doc.lock &&
        (lease.hostname === doc.hostname || (lease.hostname == null && doc.hostname == null))) {
      worker = lease.worker;
    }
    emit([state, String(doc.batch || ""), worker], null);
  }
}
