function(doc) {
   if(doc.type == "token") {
       if (doc.lock == 0 && doc.done == 0 && doc.cores == 1){
          emit('todo', 1);
       }
       if(doc.lock > 0 && doc.done == 0 && doc.cores == 1) {
          emit('locked', 1);
       }
       if(doc.lock > 0 && doc.done > 0 && parseInt(doc.exit_code) == 0 && doc.cores == 1) {
          emit('done', 1);
       }
       if(doc.lock > 0 && doc.done > 0 && parseInt(doc.exit_code) != 0 && doc.cores == 1) {
          emit('error', 1);
       }
   }
}
