//! Complaints about a folder, as people read them.

use std::fs;
use std::path::Path;
use syncline_runtime::Functions;
use syncline_runtime::compile::FunctionKind;

const SYNC: &str = "import { createSync } from 'nango';\nimport { z } from 'zod';\nexport default createSync({ models: { Contact: z.object({ id: z.string() }) }, exec: async () => {} });\n";

fn write(folder: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
    }
}

/// Every complaint about these files, one a line.
fn complaints(files: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), files);
    match Functions::load(folder.path()) {
        Ok(functions) => format!("{} functions", functions.all.len()),
        Err(complaints) => complaints.iter().map(|complaint| format!("{complaint}\n")).collect(),
    }
}

#[test]
fn files_that_cannot_be_compiled_are_told_all_at_once() {
    let told = complaints(&[
        (
            "crm/syncs/contacts.ts",
            "import { createSync } from 'nango';\nimport soap from 'soap';\nimport type { A } from '@nangohq/runner-sdk';\nimport { b } from './b.js';\nexport default createSync({ a: soap, b });\n",
        ),
        ("crm/syncs/deals.ts", "export default {\n  a: ;\n};\n"),
        ("crm/actions/up.ts", "import { x } from '../../../x.js';\nexport default x;\n"),
        (
            "crm/actions/function.ts",
            "import type { NangoSync } from 'nango';\nimport { z } from 'zod';\nimport {\n    createFunction,\n    createNothing,\n} from 'nango';\nlet nango: NangoSync;\nexport default createFunction(createNothing, z);\n",
        ),
        ("crm/syncs/data.ts", "import data from '../data.json';\nexport default data;\n"),
        ("crm/data.json", "{\n  \"a\": 1,\n}\n"),
    ]);
    assert_eq!(
        told,
        "\
crm/actions/function.ts:4:5 unsupported_function `createFunction` is not supported: write it as `createSync`, `createAction` or `createOnEvent`, in syncs/, actions/ or on-events/
crm/actions/function.ts:5:5 unknown_export `nango` has no `createNothing`; it has `createSync`, `createAction`, `createOnEvent`, `ActionError`, and types (`import type`)
crm/actions/up.ts:1:19 import_outside `../../../x.js` leads out of the folder of functions; only files inside of it can be imported
crm/data.json:3:1 syntax key must be a string at line 3 column 1
crm/syncs/contacts.ts:2:18 unknown_package `soap` is not available; there are `nango`, `zod`, `crypto`, `url` and `buffer`: bundle any other package into the file with those left external
crm/syncs/contacts.ts:4:19 unknown_file `./b.js` is not there; looked for crm/syncs/b.ts, crm/syncs/b.js, crm/syncs/b.js.ts, crm/syncs/b.js.js, crm/syncs/b.js/index.ts, crm/syncs/b.js/index.js
crm/syncs/deals.ts:2:6 syntax Unexpected token
"
    );
}

#[test]
fn files_that_declare_nothing_usable_are_told_all_at_once() {
    let told = complaints(&[
        ("crm/syncs/contacts.ts", SYNC),
        ("crm/syncs/people.ts", SYNC),
        ("crm/syncs/Deals.ts", &SYNC.replace("Contact", "Deal")),
        ("erp/syncs/contacts.ts", SYNC),
        ("crm/syncs/old.ts", "export default async function fetchData() {}\n"),
        ("crm/syncs/none.ts", "export const a = 1;\n"),
        ("crm/syncs/small.ts", &SYNC.replace("Contact", "contact")),
        (
            "crm/syncs/throws.ts",
            "import { z } from 'zod';\n\ninterface A { b: string }\nconst a: A = undefined as any;\nexport default z.object({ b: a.b });\n",
        ),
    ]);
    assert_eq!(
        told,
        "\
crm/syncs/Deals.ts invalid_name the name of a sync begins with a small letter; rename `Deals`
crm/syncs/none.ts no_definition expected `export default createSync({…})`
crm/syncs/old.ts old_format the default export is a plain function, as files beside a `nango.yaml` have it: convert them with Nango's own command first
crm/syncs/people.ts duplicate_model the model `Contact` is that of `crm/syncs/contacts.ts`; a model of a source has one sync: give this one another name
crm/syncs/small.ts invalid_model the model `contact` must begin with a capital letter
crm/syncs/throws.ts:5:30 load_failed TypeError: cannot read property 'b' of undefined
"
    );
}

#[test]
fn a_file_in_the_folder_of_another_kind_is_what_it_says() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), &[("crm/actions/contacts.ts", SYNC)]);
    let functions = Functions::load(folder.path()).unwrap();
    let place = &functions.all[0].place;
    assert_eq!((place.kind, place.name.as_str()), (FunctionKind::Sync, "contacts"));
    let told: Vec<String> = functions.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "crm/actions/contacts.ts misplaced_function it is in actions/, and counts as what createSync makes: move it to syncs/"
        ]
    );
    assert_eq!(
        complaints(&[("crm/actions/contacts.ts", SYNC), ("crm/syncs/contacts.ts", &SYNC.replace("Contact", "Person"))]),
        "crm/syncs/contacts.ts duplicate_function `crm/actions/contacts.ts` is the same function; keep one of the two\n"
    );
}

#[test]
fn half_of_what_takes_events_is_a_warning() {
    let folder = tempfile::tempdir().expect("a folder");
    let more = |text: &str| SYNC.replacen("createSync({", &format!("createSync({{ {text},"), 1);
    let person = |text: String| text.replace("Contact", "Person");
    write(
        folder.path(),
        &[
            ("crm/syncs/deaf.ts", &more("onWebhook: async () => {}")),
            ("crm/syncs/idle.ts", &person(more("webhookSubscriptions: ['a']"))),
            ("erp/syncs/whole.ts", &more("webhookSubscriptions: ['a'], onWebhook: async () => {}")),
        ],
    );
    let told: Vec<String> = Functions::load(folder.path()).unwrap().warnings.iter().map(ToString::to_string).collect();
    let wanted = [
        "deaf.ts no_effect `onWebhook`: no event comes without `webhookSubscriptions`: add the types, or `['*']`",
        "idle.ts no_effect `webhookSubscriptions`: no event is taken without `onWebhook`: add it, or leave this out",
    ];
    assert_eq!(told.len(), wanted.len(), "{told:?}");
    for (told, wanted) in told.iter().zip(wanted) {
        let (file, why) = wanted.split_once(' ').expect("a place");
        assert!(told.starts_with(&format!("crm/syncs/{file}:")) && told.ends_with(why), "{told}");
    }
}

#[test]
fn a_folder_in_the_old_format_is_told_once() {
    let told = complaints(&[
        ("nango.yaml", "integrations: {}\n"),
        ("crm/nango.yaml", "integrations: {}\n"),
        ("crm/syncs/old.ts", "export default async function fetchData(nango: NangoSync) {}\n"),
    ]);
    let old = "lists functions in Nango's old format, which is not supported: convert them with Nango's own command, then remove this file";
    assert_eq!(told, format!("crm/nango.yaml old_format {old}\nnango.yaml old_format {old}\n"));
}

#[test]
fn an_index_says_what_counts() {
    let index = "import './crm/syncs/contacts.js';\nimport './crm/helpers.js';\n";
    let told = complaints(&[
        ("index.ts", index),
        ("crm/syncs/contacts.ts", SYNC),
        ("crm/syncs/broken.ts", "export default ;;"),
        ("crm/helpers.ts", "export const a = 1;\n"),
    ]);
    assert_eq!(
        told,
        "index.ts:2:8 misplaced_function `crm/helpers.ts` is no place for a function: expected SOURCE/syncs/NAME.ts, SOURCE/actions/NAME.ts or SOURCE/on-events/NAME.ts\n"
    );
    assert_eq!(
        complaints(&[
            ("index.ts", "import './crm/syncs/contacts.js';\n"),
            ("crm/syncs/contacts.ts", SYNC),
            ("crm/syncs/broken.ts", "export default ;;")
        ]),
        "1 functions"
    );
}
