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
}
