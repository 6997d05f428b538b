//! One source file as tokens: the paths that it names, what it imports under which name, and which
//! of its lines are for tests alone. Comments are not tokens, and what stands in a macro is.

use std::iter::Peekable;
use std::ops::RangeInclusive;

use proc_macro2::token_stream::IntoIter;
use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};

/// `["crate", "store", "Reader"]`.
pub type Path = Vec<String>;

#[derive(Debug, Default)]
pub struct Source {
    /// Below `src`.
    pub file: String,
    pub text: String,
    /// Each with the module in which it is named.
    pub paths: Vec<(Path, Path)>,
    /// Module, name there, path that it stands for.
    pub aliases: Vec<(Path, String, Path)>,
    /// Inline modules.
    pub modules: Vec<Path>,
    /// Modules that exist in tests only, inline or in files of their own.
    pub test_modules: Vec<Path>,
    test_lines: Vec<RangeInclusive<usize>>,
}

impl Source {
    pub fn parse(file: &str, text: &str) -> Self {
        let mut source = Self {
            file: file.to_owned(),
            text: text.to_owned(),
            ..Self::default()
        };
        let tokens: TokenStream = text
            .parse()
            .unwrap_or_else(|error| panic!("{file}: {error}"));
        source.walk(tokens, &module_of(file));
        source
    }

    pub fn module(&self) -> Path {
        module_of(&self.file)
    }

    /// The module at the root.
    pub fn room(&self) -> &str {
        self.file
            .split('/')
            .next()
            .unwrap_or_default()
            .trim_end_matches(".rs")
    }

    /// Lines that are not for tests alone.
    pub fn lines(&self) -> usize {
        let tests: usize = self
            .test_lines
            .iter()
            .map(|lines| lines.clone().count())
            .sum();
        self.text.lines().count() - tests
    }

    fn walk(&mut self, tokens: TokenStream, module: &Path) {
        let mut tokens = tokens.into_iter().peekable();
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Group(group) => self.walk(group.stream(), module),
                TokenTree::Punct(punct) => match punct.as_char() {
                    '#' if is_for_tests(tokens.peek()) => {
                        let first = punct.span().start().line;
                        let last = self.skip_item(&mut tokens, module).unwrap_or(first);
                        self.test_lines.push(first..=last);
                    }
                    // `::a::b` names a crate; its first part is left empty.
                    ':' if punct.spacing() == Spacing::Joint => {
                        tokens.next();
                        if let Some(TokenTree::Ident(word)) = tokens.peek() {
                            let word = word.to_string();
                            tokens.next();
                            self.path(module, vec![String::new(), word], &mut tokens);
                        }
                    }
                    _ => {}
                },
                TokenTree::Ident(word) => match word.to_string().as_str() {
                    "use" if !is_char(tokens.peek(), '<') => self.import(&mut tokens, module),
                    "mod" => self.module_begins(&mut tokens, module),
                    // `pub(in crate::a)` says who may see, and imports nothing.
                    "pub" if is_visibility(tokens.peek()) => drop(tokens.next()),
                    word => self.path(module, vec![word.to_owned()], &mut tokens),
                },
                TokenTree::Literal(_) => {}
            }
        }
    }

    /// A path that begins with these words.
    fn path(&mut self, module: &Path, mut path: Path, tokens: &mut Peekable<IntoIter>) {
        while is_joint_colon(tokens.peek()) {
            tokens.next();
            tokens.next();
            let Some(TokenTree::Ident(word)) = tokens.peek() else {
                break;
            };
            path.push(word.to_string());
            tokens.next();
        }
        if path.len() > 1 {
            self.paths.push((module.clone(), path));
        }
    }

    fn module_begins(&mut self, tokens: &mut Peekable<IntoIter>, module: &Path) {
        let Some(TokenTree::Ident(name)) = tokens.next() else {
            return;
        };
        let inner = child(module, &name.to_string());
        if let Some(TokenTree::Group(group)) = tokens.peek() {
            let body = group.stream();
            tokens.next();
            self.modules.push(inner.clone());
            self.walk(body, &inner);
        }
    }

    /// Takes an item under `#[cfg(test)]`, and answers with its last line.
    fn skip_item(&mut self, tokens: &mut Peekable<IntoIter>, module: &Path) -> Option<usize> {
        let (mut last, mut kind, mut angles) = (None, None, 0);
        for token in tokens.by_ref() {
            last = Some(token.span().end().line);
            match &token {
                TokenTree::Ident(word) => match (kind.as_deref(), word.to_string().as_str()) {
                    (_, "pub" | "unsafe" | "async") => {}
                    (None | Some("const"), first) => kind = Some(first.to_owned()),
                    (Some("mod"), name) => {
                        self.test_modules.push(child(module, name));
                        kind = Some("module".to_owned());
                    }
                    _ => {}
                },
                TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                    let goes_on = ["use", "static", "let", "type"];
                    if !kind.as_deref().is_some_and(|kind| goes_on.contains(&kind)) {
                        return last;
                    }
                }
                TokenTree::Punct(punct) => match punct.as_char() {
                    ';' => return last,
                    '<' => angles += 1,
                    '>' => angles -= 1,
                    // A field, a variant or an argument.
                    ',' if angles == 0 && !kind.as_deref().is_some_and(is_item) => return last,
                    _ => {}
                },
                _ => {}
            }
        }
        last
    }

    fn import(&mut self, tokens: &mut Peekable<IntoIter>, module: &Path) {
        let tree: Vec<TokenTree> = tokens
            .take_while(|token| !is_char(Some(token), ';'))
            .collect();
        let mut leaves = Vec::new();
        use_tree(&Path::new(), &tree, &mut leaves);
        for (path, name) in leaves {
            if let Some(name) = name {
                self.aliases.push((module.clone(), name, path.clone()));
            }
            self.paths.push((module.clone(), path));
        }
    }
}

/// The paths of a `use`, each with the name that it gets.
fn use_tree(head: &Path, tree: &[TokenTree], leaves: &mut Vec<(Path, Option<String>)>) {
    for branch in tree.split(|token| is_char(Some(token), ',')) {
        let (mut path, mut name, mut renamed, mut group) = (head.clone(), None, false, None);
        for token in branch {
            match token {
                TokenTree::Ident(word) if word == "as" => renamed = true,
                TokenTree::Ident(word) if renamed => name = Some(word.to_string()),
                TokenTree::Ident(word) if word == "self" && !path.is_empty() => {}
                TokenTree::Ident(word) => path.push(word.to_string()),
                TokenTree::Group(inner) => group = Some(inner.stream()),
                _ => {}
            }
        }
        match group {
            Some(inner) => use_tree(&path, &inner.into_iter().collect::<Vec<_>>(), leaves),
            None if path.is_empty() || branch.is_empty() => {}
            None => {
                let glob = is_char(branch.last(), '*');
                let name = name.or_else(|| path.last().filter(|_| !glob).cloned());
                path.extend(glob.then(|| "*".to_owned()));
                leaves.push((path, name));
            }
        }
    }
}

/// `(crate)`, `(super)`, `(in crate::a)` behind `pub`.
fn is_visibility(token: Option<&TokenTree>) -> bool {
    let Some(TokenTree::Group(group)) = token else {
        return false;
    };
    let words = words(group.stream());
    match words.first().map(String::as_str) {
        Some("in") => true,
        Some("crate" | "super" | "self") => words.len() == 1,
        _ => false,
    }
}

fn is_item(kind: &str) -> bool {
    let items = "fn impl struct enum trait module const static type use";
    items.split(' ').any(|item| item == kind)
}

/// `[cfg(test)]` or `[cfg(all(test, …))]`.
fn is_for_tests(attribute: Option<&TokenTree>) -> bool {
    let Some(TokenTree::Group(group)) = attribute else {
        return false;
    };
    let words = words(group.stream());
    words.first().is_some_and(|word| word == "cfg")
        && words.iter().any(|word| word == "test")
        && !words.iter().any(|word| word == "not" || word == "any")
}

fn words(tokens: TokenStream) -> Vec<String> {
    let words = tokens.into_iter().map(|token| match token {
        TokenTree::Ident(word) => vec![word.to_string()],
        TokenTree::Group(group) => words(group.stream()),
        _ => Vec::new(),
    });
    words.flatten().collect()
}

fn is_char(token: Option<&TokenTree>, char: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == char)
}

fn is_joint_colon(token: Option<&TokenTree>) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == ':' && punct.spacing() == Spacing::Joint)
}

pub fn child(module: &Path, name: &str) -> Path {
    let mut inner = module.clone();
    inner.push(name.to_owned());
    inner
}

fn module_of(file: &str) -> Path {
    let mut parts: Path = file
        .trim_end_matches(".rs")
        .split('/')
        .map(str::to_owned)
        .collect();
    if parts
        .last()
        .is_some_and(|last| last == "mod" || last == "lib")
    {
        parts.pop();
    }
    parts
}
