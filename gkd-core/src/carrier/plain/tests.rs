use tokio::io::{DuplexStream, duplex};

use super::*;

const VECTOR: &str = include_str!("../../../testdata/plain.txt");

fn vector(name: &str) -> Vec<u8> {
    let lines = VECTOR.lines().filter_map(|line| line.split_once('\t'));
    let (_, hex) = lines.into_iter().find(|(key, _)| *key == name).unwrap();
    data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap()
}

fn array<const N: usize>(name: &str) -> [u8; N] {
    vector(name).try_into().unwrap()
}

fn client() -> SecretKey {
    SecretKey::from_seed(array("client's seed"))
}

fn acceptor() -> Acceptor {
    Acceptor::new(&SecretKey::from_seed(array("server's seed")))
}

fn claim() -> Claim {
    let tunnel = TunnelId(u64::from_be_bytes(array("tunnel")));
    Claim { session: SessionId(array("session")), tunnel }
}

#[tokio::test]
async fn the_client_says_what_the_vector_says() {
    let (near, mut far) = duplex(4096);
    let server = async {
        let mut preface = vec![0; 12];
        far.read_exact(&mut preface).await.unwrap();
        assert_eq!(preface, vector("preface"));
        far.write_all(&vector("answer")).await.unwrap();
        let mut proof = vec![0; 120];
        far.read_exact(&mut proof).await.unwrap();
        assert_eq!(proof, vector("proof"));
    };
    let key = client();
    let Claim { session, tunnel } = claim();
    let server_key = Some(acceptor().key);
    let (carrier, ()) = tokio::join!(connect(Wire::brought(near), &key, server_key, session, tunnel), server);
    assert_eq!(carrier.unwrap().peer(), acceptor().key);
}

/// A server with the vector's challenge, or another, and a client that says `message`.
async fn accept(challenge: Challenge, message: &[u8]) -> (Result<Carrier, CarrierError>, DuplexStream) {
    let (mut near, far) = duplex(4096);
    near.write_all(message).await.unwrap();
    (acceptor().accept_with(Wire::brought(far), challenge).await, near)
}

#[tokio::test]
async fn the_server_takes_and_says_what_the_vector_says() {
    let message = [vector("preface"), vector("proof"), b"hello".to_vec()].concat();
    let (carrier, mut near) = accept(array("challenge"), &message).await;
    let mut carrier = carrier.unwrap();
    assert_eq!((carrier.peer(), carrier.claim), (client().public(), Some(claim())));
    let mut answer = vec![0; 64];
    near.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, vector("answer"));
    // What came with the proof is the tunnel's.
    let mut rest = [0; 5];
    carrier.read_exact(&mut rest).await.unwrap();
    assert_eq!(&rest, b"hello");
}

#[test]
fn the_signature_is_over_what_the_vector_says() {
    let proof = Proof { client: client().public(), claim: claim() };
    assert_eq!(proof.signed(&array("challenge"), acceptor().key), vector("signed"));
    assert_eq!(Proof::from_bytes(proof.bytes()), proof);
}

#[tokio::test]
async fn a_proof_that_is_replayed_is_refused() {
    let message = [vector("preface"), vector("proof")].concat();
    let (near, far) = duplex(4096);
    let mut near = near;
    near.write_all(&message).await.unwrap();
    let result = acceptor().accept(Wire::brought(far)).await;
    assert!(matches!(result, Err(CarrierError::BadSignature)), "{result:?}");
}

#[tokio::test]
async fn a_proof_for_another_server_is_refused() {
    let message = [vector("preface"), vector("proof")].concat();
    let (mut near, far) = duplex(4096);
    near.write_all(&message).await.unwrap();
    let other = Acceptor::new(&SecretKey::from_seed([3; 32]));
    let result = other.accept_with(Wire::brought(far), array("challenge")).await;
    assert!(matches!(result, Err(CarrierError::BadSignature)), "{result:?}");
}

#[tokio::test]
async fn a_proof_with_any_byte_changed_is_refused() {
    let proof = vector("proof");
    for at in 0..proof.len() {
        let mut changed = [vector("preface"), proof.clone()].concat();
        changed[PREFACE.len() + at] ^= 0x80;
        let (result, _) = accept(array("challenge"), &changed).await;
        assert!(matches!(result, Err(CarrierError::BadSignature)), "byte {at}: {result:?}");
    }
}

#[tokio::test]
async fn another_preface_is_refused() {
    let (result, _) = accept(array("challenge"), b"gkd/1 plaim\n and more").await;
    assert!(matches!(result, Err(CarrierError::NotGkdClient)));
}

#[tokio::test]
async fn a_refusal_is_what_the_vector_says_and_is_final_only_when_whole() {
    let (mut near, far) = duplex(4096);
    let error = refuse(Wire::brought(far)).await;
    assert!(matches!(error, CarrierError::PlainNotTaken), "{error:?}");
    let mut said = Vec::new();
    near.read_to_end(&mut said).await.unwrap();
    assert_eq!(said, vector("refusal"));

    let (key, Claim { session, tunnel }) = (client(), claim());
    for cut in 0..=said.len() {
        let (near, mut far) = duplex(4096);
        far.write_all(&said[..cut]).await.unwrap();
        far.shutdown().await.unwrap();
        let error = connect(Wire::brought(near), &key, None, session, tunnel).await.unwrap_err();
        match error {
            CarrierError::PlainRefused { .. } => assert_eq!(cut, said.len()),
            CarrierError::PlainClosed => assert!(cut < said.len()),
            other => panic!("cut at {cut}: {other:?}"),
        }
    }
}
