//! A program that knows nothing of async: it is written as for `std::net`, and outlives its connections.
//!
//! ```text
//! cargo run -p sheetbend-smol --example blocking
//! ```
#![allow(clippy::print_stdout)]
// Threads of its own are what it is about.
#![allow(clippy::disallowed_methods)]

use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::net::Shutdown;
use std::thread;

use sheetbend_smol::{SessionListener, SessionStream, runtime};

/// With `std::net` this would be a `TcpStream`.
fn serve(stream: SessionStream) -> io::Result<()> {
    let mut writer = BufWriter::new(&stream);
    for line in BufReader::new(&stream).lines() {
        writeln!(writer, "{}", line?.to_uppercase())?;
    }
    writer.flush()?;
    drop(writer);
    stream.finish()
}

fn main() -> io::Result<()> {
    let listener = SessionListener::bind(&runtime(), "tcp://127.0.0.1:0")?;
    let address = listener.local_addr().clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.expect("the server goes on");
            thread::spawn(move || serve(stream).expect("an honest client"));
        }
    });

    let clients: Vec<_> = (0..3)
        .map(|number| {
            let address = address.clone();
            thread::spawn(move || -> io::Result<String> {
                let mut stream = SessionStream::connect(&runtime(), address)?;
                writeln!(stream, "hello from client {number}")?;
                writeln!(stream, "and goodbye")?;
                stream.shutdown(Shutdown::Write)?;
                let mut answer = String::new();
                stream.read_to_string(&mut answer)?;
                Ok(answer)
            })
        })
        .collect();
    for (number, client) in clients.into_iter().enumerate() {
        let answer = client.join().expect("it does not panic")?;
        assert_eq!(answer, format!("HELLO FROM CLIENT {number}\nAND GOODBYE\n"));
        print!("{answer}");
    }
    Ok(())
}
