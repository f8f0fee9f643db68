// Tells Syncline of every committed change of the collections. Handlers run alone, so each requires what it uses.

onRecordAfterCreateSuccess((e) => {
  e.next();
  require(`${__hooks}/tell.js`)(e.record, "created");
}, "tasks", "posts");

onRecordAfterUpdateSuccess((e) => {
  e.next();
  require(`${__hooks}/tell.js`)(e.record, "changed");
}, "tasks", "posts");

onRecordAfterDeleteSuccess((e) => {
  e.next();
  require(`${__hooks}/tell.js`)(e.record, "deleted");
}, "tasks", "posts");
