// Tells Syncline of every committed change of the collection `tasks`. Handlers run alone, so each requires what it uses.

onRecordAfterCreateSuccess((e) => {
  e.next();
  require(`${__hooks}/tell.js`)(e.record, "created");
}, "tasks");

onRecordAfterUpdateSuccess((e) => {
  e.next();
  require(`${__hooks}/tell.js`)(e.record, "changed");
}, "tasks");

onRecordAfterDeleteSuccess((e) => {
  e.next();
  require(`${__hooks}/tell.js`)(e.record, "deleted");
}, "tasks");
