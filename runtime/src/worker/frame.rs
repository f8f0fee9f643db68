//! What the two processes say, as frames on a socket: the length of what follows, then that, packed.
//!
//! Promises: a frame is bounded, and one that cannot be read is an error that says so, never a wrong message.

use crate::compile::{ModuleCode, Modules};
use crate::wire::{Answer, Call, Ended, Invocation};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::io::{self, Read};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Most bytes of one frame: the body of an answer, or the records of one step.
pub const FRAME_BYTES: usize = 64 << 20;
/// Bytes of modules from which on a frame of them is closed.
const PART_BYTES: usize = 8 << 20;
/// Room for what is in a frame beside its bytes, so that most grow once.
const BESIDE: usize = 256;

/// From the parent to its worker.
#[derive(Serialize, Deserialize)]
pub(super) enum ToWorker<'a> {
    /// A part of a set of modules; with the last part the set is whole.
    Modules { hash: Cow<'a, str>, part: Vec<(Cow<'a, str>, Cow<'a, ModuleCode>)>, last: bool },
    /// No further invocation is of this set.
    Forget { hash: String },
    /// Tell what a file declares: it ends with that as its output.
    Describe { invocation: u64, hash: Cow<'a, str>, file: Cow<'a, str> },
    /// Begin a function.
    Begin { invocation: u64, hash: Cow<'a, str>, of: Cow<'a, Invocation> },
    /// What is answered to one of its calls.
    Answer { invocation: u64, call: u32, answer: Answer },
    /// End it.
    Stop { invocation: u64, code: Cow<'a, str>, message: Cow<'a, str> },
}

/// From a worker to its parent.
#[derive(Serialize, Deserialize)]
pub(super) enum FromWorker {
    /// It is confined, and takes invocations.
    Ready,
    /// An invocation asks.
    Call { invocation: u64, call: Call },
    /// An invocation ended.
    Ended { invocation: u64, ended: Ended },
    /// Which invocation's code runs from here on, if one does.
    Running(Option<u64>),
}

/// Adds a frame to others; nothing is added if it is too large.
pub(super) fn add(frames: &mut Vec<u8>, message: &impl Serialize, bytes: usize) -> io::Result<()> {
    let from = frames.len();
    frames.reserve(bytes + BESIDE);
    frames.extend([0; 4]);
    let packed = postcard::to_extend(message, std::mem::take(frames)).map_err(|error| invalid(&error.to_string()))?;
    *frames = packed;
    let length = frames.len() - from - 4;
    if length > FRAME_BYTES {
        frames.truncate(from);
        return Err(too_large(length));
    }
    if let Some(head) = frames.get_mut(from..).and_then(|frame| frame.first_chunk_mut()) {
        *head = (length as u32).to_le_bytes();
    }
    Ok(())
}

/// One frame.
pub(super) fn pack(message: &impl Serialize, bytes: usize) -> io::Result<Vec<u8>> {
    let mut frame = Vec::new();
    add(&mut frame, message, bytes)?;
    Ok(frame)
}

/// The message of a frame, without its length.
pub(super) fn unpack<'a, T: Deserialize<'a>>(frame: &'a [u8]) -> io::Result<T> {
    match postcard::take_from_bytes(frame) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => Err(invalid(&format!("{} bytes are left over", rest.len()))),
        Err(error) => Err(invalid(&error.to_string())),
    }
}

/// Reads a frame into `frame`; gives whether there was one, and not the end.
pub(super) fn read(from: &mut impl Read, frame: &mut Vec<u8>) -> io::Result<bool> {
    let mut length = [0; 4];
    frame.clear();
    if from.by_ref().take(1).read_to_end(frame)? == 0 {
        return Ok(false);
    }
    let [first, rest @ ..] = &mut length;
    *first = frame.pop().unwrap_or_default();
    from.read_exact(rest)?;
    let length = checked(u32::from_le_bytes(length))?;
    frame.reserve_exact(length);
    match from.by_ref().take(length as u64).read_to_end(frame)? == length {
        true => Ok(true),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// The same without blocking.
pub(super) async fn receive(from: &mut (impl AsyncRead + Unpin), frame: &mut Vec<u8>) -> io::Result<bool> {
    let length = match from.read_u32_le().await {
        Ok(length) => checked(length)?,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        Err(error) => return Err(error),
    };
    frame.clear();
    frame.reserve_exact(length);
    match from.take(length as u64).read_to_end(frame).await? == length {
        true => Ok(true),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn checked(length: u32) -> io::Result<usize> {
    match length as usize {
        length if length <= FRAME_BYTES => Ok(length),
        length => Err(too_large(length)),
    }
}

/// Frames of a set of modules.
pub(super) fn of_modules(modules: &Modules) -> io::Result<Vec<Vec<u8>>> {
    let mut frames = Vec::new();
    let (mut part, mut bytes) = (Vec::new(), 0);
    let frame = |part: &mut Vec<_>, bytes, last| {
        let hash = Cow::Borrowed(modules.hash.as_str());
        pack(&ToWorker::Modules { hash, part: std::mem::take(part), last }, bytes)
    };
    for (name, module) in &modules.modules {
        part.push((Cow::Borrowed(name.as_str()), Cow::Borrowed(module)));
        bytes += name.len() + module.code.len();
        if bytes >= PART_BYTES {
            frames.push(frame(&mut part, bytes, false)?);
            bytes = 0;
        }
    }
    frames.push(frame(&mut part, bytes, true)?);
    Ok(frames)
}

fn too_large(length: usize) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, format!("a frame of {length} bytes; at most {FRAME_BYTES} are allowed"))
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a frame that cannot be read: {what}"))
}

#[cfg(test)]
mod tests {
    //! Frames that are whole, cut and damaged.

    use super::*;

    #[test]
    fn a_frame_is_read_as_it_was_written_and_damage_is_an_error() {
        let call = ToWorker::Answer { invocation: 7, call: 300, answer: Answer::Json(b"[1]".to_vec()) };
        let frames = pack(&call, 3).unwrap();
        let mut frame = Vec::new();
        assert!(read(&mut frames.as_slice(), &mut frame).unwrap());
        let ToWorker::Answer { invocation: 7, call: 300, answer } = unpack(&frame).unwrap() else { panic!("another") };
        assert_eq!(answer, Answer::Json(b"[1]".to_vec()));
        assert!(!read(&mut [].as_slice(), &mut frame).unwrap());
        for cut in 1..frames.len() {
            assert!(read(&mut &frames[..cut], &mut frame).is_err(), "cut at {cut}");
        }
        let mut longer = frames[4..].to_vec();
        longer.push(0);
        assert!(
            unpack::<ToWorker<'_>>(&longer).is_err_and(|error| error.to_string().contains("1 bytes are left over"))
        );
        assert!(unpack::<ToWorker<'_>>(&[99]).is_err());
        let error = read(&mut u32::MAX.to_le_bytes().as_slice(), &mut frame).unwrap_err();
        assert!(error.to_string().contains("at most 67108864"), "{error}");
    }

    #[test]
    fn what_is_too_large_is_not_added() {
        let mut frames = pack(&FromWorker::Ready, 0).unwrap();
        let before = frames.clone();
        let answer = Answer::Json(vec![0; FRAME_BYTES]);
        assert!(add(&mut frames, &ToWorker::Answer { invocation: 1, call: 1, answer }, FRAME_BYTES).is_err());
        assert_eq!(frames, before);
    }
}
