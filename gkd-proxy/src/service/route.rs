//! Which service a request is for ([`Routes`]), by its host and its path. Does no IO, and knows nothing of services.
//!
//! The host decides first, and the most specific pattern that stands for it: the host itself, then the longest name that it
//! is below, then `*`. Among the paths of that pattern the longest decides. A pattern that has no path for the request
//! hides the wider ones all the same, as in nginx (`server_name`) and Envoy (`virtual_hosts`): so nothing of a host that
//! was given away goes elsewhere by accident.
//!
//! Hosts are compared without case, port and the dot at their end; a host beyond ASCII is only met by `*`. Paths are
//! compared part by part as targets read them (RFC 3986, section 6.2.2): with letters that were written as %XX put back,
//! and without empty parts, `.` and `..`, so that `/x/../admin` is not taken for something below `/x`. What a
//! target gets stays as it was written; an encoded slash stays one.
//!
//! A lookup takes a step for each label of the host and each part of the longest matching path, and allocates nothing
//! unless the path has to be put straight or the host is an IPv6 address.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashMap;

use super::config::{HostForm, HostPattern, unescaped, with_canonical};

/// Values by host and path.
#[derive(Clone, Debug)]
pub struct Routes<T> {
    /// Of hosts, by their labels from the last on.
    hosts: Tree<Host<T>>,
    any: Option<Paths<T>>,
}

/// Values by path, by its parts from the first on.
type Paths<T> = Tree<Option<T>>;

/// What is known of a name.
#[derive(Clone, Debug)]
struct Host<T> {
    exact: Option<Paths<T>>,
    /// Of all that is below it.
    below: Option<Paths<T>>,
}

/// A value, and those further on. As deep as a name has labels or a path of a service has parts, both of which are bounded.
#[derive(Clone, Debug)]
struct Tree<V> {
    value: V,
    children: HashMap<Box<str>, Self>,
}

/// A host and a path stand already.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{host} with the path {path} is another service's")]
pub struct Clash {
    /// The host.
    pub host: HostPattern,
    /// The path.
    pub path: String,
}

impl<T> Default for Host<T> {
    fn default() -> Self {
        Self { exact: None, below: None }
    }
}

impl<V: Default> Default for Tree<V> {
    fn default() -> Self {
        Self { value: V::default(), children: HashMap::new() }
    }
}

impl<T> Default for Routes<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Routes<T> {
    /// No routes.
    pub fn new() -> Self {
        Self { hosts: Tree::default(), any: None }
    }

    /// Adds one, for all below a path of [`parse_path`](super::config::parse_path).
    ///
    /// # Errors
    /// The same host has the same path already; nothing is changed.
    pub fn insert(&mut self, host: &HostPattern, path: &str, value: T) -> Result<(), Clash> {
        let paths = match host.form() {
            HostForm::Exact(name) => &mut self.hosts.child(labels(name)).value.exact,
            HostForm::Below(name) => &mut self.hosts.child(labels(name)).value.below,
            HostForm::Any => &mut self.any,
        };
        let place = &mut paths.get_or_insert_default().child(parts(path)).value;
        if place.is_some() {
            return Err(Clash { host: host.clone(), path: path.to_owned() });
        }
        *place = Some(value);
        Ok(())
    }

    /// Takes one away again, and with it the memory that it took.
    pub fn remove(&mut self, host: &HostPattern, path: &str) -> Option<T> {
        let from = |paths: &mut Option<Paths<T>>| {
            let tree = paths.as_mut()?;
            let value = tree.take(&mut parts(path), &mut Option::take, &|value| value.is_none());
            if tree.is_bare(&|value| value.is_none()) {
                *paths = None;
            }
            value
        };
        let is_empty = |host: &Host<T>| host.exact.is_none() && host.below.is_none();
        match host.form() {
            HostForm::Exact(name) => {
                self.hosts.take(&mut labels(name), &mut |host| from(&mut host.exact), &is_empty)
            }
            HostForm::Below(name) => {
                self.hosts.take(&mut labels(name), &mut |host| from(&mut host.below), &is_empty)
            }
            HostForm::Any => from(&mut self.any),
        }
    }

    /// The value for a request with this Host, which is empty where there is none, and this path, without its query.
    pub fn find(&self, host: &str, path: &str) -> Option<&T> {
        let paths = with_canonical(host, |host| self.of_host(host))?;
        paths.longest(&straight(path))
    }

    /// The paths of the most specific pattern.
    fn of_host(&self, host: &str) -> Option<&Paths<T>> {
        let mut widest_so_far = self.any.as_ref();
        if host.is_empty() {
            return widest_so_far;
        }
        let mut node = &self.hosts;
        let mut labels = labels(host).peekable();
        while let Some(label) = labels.next() {
            let Some(child) = node.children.get(label) else { return widest_so_far };
            node = child;
            match labels.peek() {
                Some(_) => widest_so_far = node.value.below.as_ref().or(widest_so_far),
                None => return node.value.exact.as_ref().or(widest_so_far),
            }
        }
        widest_so_far
    }
}

impl<T> Paths<T> {
    /// The value of the longest path that the request's begins with.
    fn longest(&self, path: &str) -> Option<&T> {
        let mut node = self;
        let mut found = node.value.as_ref();
        for part in parts(path) {
            let Some(child) = node.children.get(part) else { break };
            node = child;
            found = node.value.as_ref().or(found);
        }
        found
    }
}

impl<V: Default> Tree<V> {
    /// The node at these steps, which is made if it is not there.
    fn child<'a>(&mut self, steps: impl Iterator<Item = &'a str>) -> &mut Self {
        steps.fold(self, |node, step| node.children.entry(step.into()).or_default())
    }
}

impl<V> Tree<V> {
    fn is_bare(&self, is_empty: &impl Fn(&V) -> bool) -> bool {
        self.children.is_empty() && is_empty(&self.value)
    }

    /// What `take` makes of the node at these steps, whose way is cleared of nodes that hold nothing any more.
    fn take<'a, R>(
        &mut self,
        steps: &mut impl Iterator<Item = &'a str>,
        take: &mut impl FnMut(&mut V) -> Option<R>,
        is_empty: &impl Fn(&V) -> bool,
    ) -> Option<R> {
        let Some(step) = steps.next() else { return take(&mut self.value) };
        let child = self.children.get_mut(step)?;
        let taken = child.take(steps, take, is_empty);
        if child.is_bare(is_empty) {
            self.children.remove(step);
        }
        taken
    }
}

/// Labels of a host from the last on. An IPv6 address, in its brackets, is one.
fn labels(host: &str) -> impl Iterator<Item = &str> {
    host.rsplit('.')
}

/// Parts of a path that is straight; `/` and what is no path have none.
fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.strip_prefix('/').unwrap_or_default().split('/').take_while(|part| !part.is_empty())
}

/// A path as paths of services are written. As it stands where nothing is to be put straight, which is the usual case.
fn straight(path: &str) -> Cow<'_, str> {
    let is_straight = !path.contains('%') && !path.contains("//") && !path.contains("/.");
    if is_straight {
        return Cow::Borrowed(path);
    }
    let path = unescaped(path);
    // Where each part begins in `out`, so that `..` takes the last away.
    let (mut out, mut begins) = (String::with_capacity(path.len()), Vec::new());
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => out.truncate(begins.pop().unwrap_or_default()),
            part => {
                begins.push(out.len());
                out.push('/');
                out.push_str(part);
            }
        }
    }
    Cow::Owned(out)
}
