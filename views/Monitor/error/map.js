function(doc) {
   if(doc.type == "token") {
    if(doc.lock > 0 && doc.done > 0 && parseInt(doc.exit_code) != 0) {
      emit(doc._id, doc._id);
    }
  }
}
