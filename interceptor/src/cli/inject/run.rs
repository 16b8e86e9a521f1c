//! Injects the workloads of files.

use interceptor_injection::{
    Config, Outcome, Replaced, Subject,
    decision::{
        Reason,
        webhooks::{Called, Configuration, Creation},
    },
    diff,
    documents::{self, Document, Piece, Rendered},
    inject,
    refusal::{Problem, Refusal},
    uninject::{Uninjected, uninject, uninject_job_template},
    workloads::{self, Workload},
};
use serde_json::Value;

use crate::cli::{inject::parallel::in_parallel, labels::Labels, manifests::Source};

/// What is done to all files.
pub(super) struct Job<'a> {
    pub(super) action: Action,
    /// The namespace of objects without one.
    pub(super) namespace: &'a str,
    /// The webhooks that must select a workload, and the labels of its namespace.
    pub(super) webhooks: Option<(Configuration, &'a Labels)>,
}

pub(super) enum Action {
    Inject(Box<Config>),
    Uninject,
}

/// A file and its result.
pub(super) struct File {
    pub(super) source: Source,
    pub(super) text: String,
    /// Whether a document is an object, of any kind.
    pub(super) has_objects: bool,
    pub(super) documents: Vec<Changes>,
    pub(super) workloads: Vec<Item>,
    pub(super) problems: Vec<String>,
    pub(super) notes: Vec<String>,
}

/// What was done to a piece.
enum PieceResult<'a> {
    Verbatim(&'a str),
    Document(&'a Document<'a>, DocumentResult),
}

/// What was done to a document.
struct DocumentResult {
    workloads: Vec<Item>,
    rendered: Rendered,
    value: Value,
}

/// A document that changes.
pub(super) struct Changes {
    pub(super) number: usize,
    pub(super) before: Value,
    pub(super) after: Value,
}

/// A workload and its result.
pub(super) struct Item {
    pub(super) workload: Workload,
    pub(super) namespace: String,
    pub(super) result: Result<Done, Refusal>,
}

/// What was done to a workload.
pub(super) enum Done {
    Injected {
        reason: Reason,
        replaced: Option<Replaced>,
        warnings: Vec<String>,
    },
    Skipped(Reason),
    Uninjected {
        notes: Vec<String>,
    },
    NotInjected,
}

impl Job<'_> {
    pub(super) fn run(&self, sources: Vec<Source>) -> Vec<File> {
        sources
            .into_iter()
            .map(|source| self.file(source))
            .collect()
    }

    fn file(&self, mut source: Source) -> File {
        let text = std::mem::take(&mut source.text);
        let mut file = File {
            source,
            text: String::with_capacity(text.len()),
            has_objects: false,
            documents: Vec::new(),
            workloads: Vec::new(),
            problems: Vec::new(),
            notes: Vec::new(),
        };
        let parts = documents::parts(&text);
        let pieces = in_parallel(&parts, documents::Part::read);
        match pieces.into_iter().collect::<Result<Vec<_>, _>>() {
            Ok(pieces) => self.pieces(&pieces.concat(), &mut file),
            Err(error) => {
                let problem = format!("{}: {error}", file.source.name());
                file.problems.push(problem);
            }
        }
        file.source.text = text;
        file
    }

    fn pieces(&self, pieces: &[Piece<'_>], file: &mut File) {
        let results = in_parallel(pieces, |piece| match piece {
            Piece::Verbatim(text) => PieceResult::Verbatim(text),
            Piece::Document(document) => PieceResult::Document(document, self.document(document)),
        });
        let mut number = 0;
        for result in results {
            match result {
                PieceResult::Verbatim(text) => file.text += text,
                PieceResult::Document(document, result) => {
                    number += 1;
                    file.add(document, number, result);
                }
            }
        }
    }

    fn document(&self, document: &Document<'_>) -> DocumentResult {
        let mut value = document.value.clone();
        let workloads = workloads::of(&document.value).into_iter();
        let workloads = workloads
            .map(|workload| self.workload(workload, &mut value))
            .collect();
        DocumentResult {
            workloads,
            rendered: document.render(&value),
            value,
        }
    }

    /// Changes the pod of `workload` in `object`.
    fn workload(&self, mut workload: Workload, object: &mut Value) -> Item {
        if workload.owner.namespace.is_empty() {
            self.namespace.clone_into(&mut workload.owner.namespace);
        }
        let mut result = match object.pointer_mut(&workload.pointer) {
            Some(pod) => self.pod(pod, &workload),
            None => Ok(Done::NotInjected),
        };
        if let (Ok(Done::NotInjected), "CronJob") = (&result, &*workload.owner.kind) {
            let job = workload.pointer.strip_suffix("/spec/template");
            if let Some(job) = job.and_then(|pointer| object.pointer_mut(pointer)) {
                result = remove(job, uninject_job_template);
            }
        }
        Item {
            namespace: workload.owner.namespace.clone(),
            workload,
            result,
        }
    }

    fn pod(&self, pod: &mut Value, workload: &Workload) -> Result<Done, Refusal> {
        let Action::Inject(config) = &self.action else {
            return remove(pod, uninject);
        };
        if let Some(reason) = self.not_selected(pod, workload) {
            return Ok(Done::Skipped(reason));
        }
        let is_pod = workload.owner.kind == "Pod";
        let subject = Subject {
            namespace: workload.owner.namespace.clone(),
            owner: (!is_pod).then(|| workload.owner.clone()),
            ..Subject::default()
        };
        Ok(match inject(pod, &subject, config)? {
            Outcome::Skip(reason) => Done::Skipped(reason),
            Outcome::Inject(injected) => {
                *pod = injected.pod;
                Done::Injected {
                    reason: injected.reason,
                    replaced: injected.replaced,
                    warnings: injected.warnings,
                }
            }
        })
    }

    /// Why the API server would not call the injector.
    fn not_selected(&self, pod: &Value, workload: &Workload) -> Option<Reason> {
        let (webhooks, namespace) = self.webhooks.as_ref()?;
        let labels = pod["metadata"]["labels"].as_object().into_iter().flatten();
        let labels = labels.filter_map(|(key, value)| Some((&**key, value.as_str()?)));
        let labels = labels.collect();
        let creation = Creation::new(&workload.owner.namespace, namespace.get(), labels);
        match webhooks.called(&creation) {
            Called::No(reason) => Some(reason),
            Called::Yes(_) | Called::IfConditions(_) => None,
        }
    }
}

fn remove(
    pod: &mut Value,
    uninject: fn(&Value) -> Result<Uninjected, Refusal>,
) -> Result<Done, Refusal> {
    let (original, notes) = match uninject(pod)? {
        Uninjected::Untouched => return Ok(Done::NotInjected),
        Uninjected::Exact(original) => (original, Vec::new()),
        Uninjected::BestEffort(original, notes) => (original, notes),
    };
    *pod = original;
    Ok(Done::Uninjected { notes })
}

/// Where the cause of `problem` is.
fn pointer(workload: &Workload, problem: &Problem) -> String {
    let pod = &workload.pointer;
    match problem {
        Problem::Annotation { name, .. } => {
            let name = name.replace('~', "~0").replace('/', "~1");
            format!("{pod}/metadata/annotations/{name}")
        }
        Problem::Other(_) => pod.clone(),
    }
}

impl Item {
    /// As kubectl prints it: `deployment/web`.
    pub(super) fn object(&self) -> String {
        let owner = &self.workload.owner;
        let kind = owner.kind.to_lowercase();
        match &*owner.name {
            "" => kind,
            name => format!("{kind}/{name}"),
        }
    }
}

impl File {
    fn add(&mut self, document: &Document<'_>, number: usize, result: DocumentResult) {
        let name = self.source.name();
        let place = |line| format!("{name}: document {number}, line {line}");
        self.has_objects |= document.value.is_object();
        for item in &result.workloads {
            let problems = item.result.as_ref().err();
            for problem in problems.into_iter().flat_map(|refusal| &refusal.0) {
                let line = document.line_of(&pointer(&item.workload, problem));
                let object = item.object();
                self.problems
                    .push(format!("{}: {object}: {problem}", place(line)));
            }
        }
        self.workloads.extend(result.workloads);
        self.text += &result.rendered.text;
        if result.rendered.comments_lost {
            self.notes.push(format!(
                "{}: comments are lost: a document with anchors, tags or everything in braces is \
                 written again as a whole",
                place(document.line),
            ));
        }
        if result.value != document.value {
            self.documents.push(Changes {
                number,
                before: document.value.clone(),
                after: result.value,
            });
        }
    }

    pub(super) fn diff(&self) -> String {
        diff::unified(&self.source.name(), &self.source.text, &self.text)
    }
}

/// All files as one stream.
pub(super) fn stream(files: &[File]) -> String {
    let mut stream = String::new();
    for File { text, .. } in files.iter().filter(|file| !file.text.is_empty()) {
        if !stream.is_empty() {
            let is_json = stream.starts_with('{') && text.starts_with('{');
            if !stream.ends_with('\n') {
                stream.push('\n');
            }
            if !is_json && !text.starts_with("---") {
                stream += "---\n";
            }
        }
        stream += text;
    }
    stream
}
