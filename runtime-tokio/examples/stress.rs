use std::time::Duration;
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    for round in 0..3000u32 {
        let server = sheetbend_tokio::bind("tcp://127.0.0.1:0").await.unwrap();
        let address = server.addresses()[0].clone();
        let connect = tokio::time::timeout(Duration::from_secs(2), sheetbend_tokio::connect(&address)).await;
        let Ok(client) = connect else {
            println!("{round}: connect hangs");
            std::process::exit(1)
        };
        let client = client.unwrap();
        let Ok(accepted) = tokio::time::timeout(Duration::from_secs(2), server.accept()).await else {
            println!(
                "{round}: accept hangs; client {:?} {:?}",
                client.state(),
                client.paths()
            );
            std::process::exit(1)
        };
        let accepted = accepted.unwrap();
        let a2 = accepted.clone();
        tokio::spawn(async move {
            while let Ok(mut r) = accepted.accept_request().await {
                let p = r.take_payload();
                r.respond(p);
            }
        });
        for i in 0..20 {
            let r = tokio::time::timeout(Duration::from_secs(2), client.request("echo", vec![1u8; 64])).await;
            if r.is_err() {
                println!(
                    "{round}.{i}: request hangs; client {:?} {:?} {:?}\nserver {:?} {:?} {:?}",
                    client.state(),
                    client.paths(),
                    client.stats(),
                    a2.state(),
                    a2.paths(),
                    a2.stats()
                );
                std::process::exit(1)
            }
            if let Ok(Err(e)) = r {
                println!("{round}.{i}: {e}");
                std::process::exit(1)
            }
        }
    }
    println!("ok");
}
