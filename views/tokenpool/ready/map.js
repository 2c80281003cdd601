function (doc) {
  // What a worker may claim, by batch and priority; the hash spreads workers that start at a random place.
  if (doc.type == "token" && doc.lock == 0 && doc.done == 0 && !doc.cancel) {
    var hash = 2166136261, id = String(doc._id), i;
    for (i = 0; i < id.length; i++) {
      hash ^= id.charCodeAt(i);
      hash = ((hash & 65535) * 403 + ((((hash >>> 16) * 403 + (hash & 65535) * 256) & 65535) << 16)) >>> 0;
    }
    emit([String(doc.batch || ""), -(Number(doc.priority) || 0), hash / 4294967296], null);
  }
  // The rules of a batch stand behind its tokens: who asks which batches have work is told how to treat them.
  if (doc.type == "batch" && doc._id.slice(0, 6) == "batch_") {
    emit([doc._id.slice(6), ["batch", doc.paused ? 1 : 0, typeof doc.priority == "number" ? doc.priority : 0,
      typeof doc.max_running == "number" ? Math.max(0, Math.floor(doc.max_running)) : null]], null);
  }
}
